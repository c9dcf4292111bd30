"""All patches of a gray image, each pixel in many of them, and the mean of what they say of it."""

import numpy as np

from experiments.photographs import photographs, square_images

GRAY = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601's luma


def overlapping_patches(image, patch_size):
    """Returns the patches `(H - p + 1, W - p + 1, p p)` at every place of an image `(H, W)`."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size))
    return windows.reshape(*windows.shape[:2], -1)


def average(patches, image, *, weight):
    """Returns the image `(H, W)` that is nearest to all patches, and `weight` times to `image`.

    The closed form of Elad and Aharon 2006, equation 12.

    Args:
      patches: `(H - p + 1, W - p + 1, p p)`.
      image: `(H, W)`.
      weight: of the image beside a patch, a number or `(H, W)`.
    """
    h, w = patches.shape[:2]
    p = image.shape[0] - h + 1
    total, count = np.float64(image) * weight, np.zeros(image.shape) + weight
    for i, j in np.ndindex(p, p):
        total[i : i + h, j : j + w] += patches[..., i * p + j]
        count[i : i + h, j : j + w] += 1
    return np.float32(total / count)


def gray_images(source, split, side):
    """Returns name -> gray image `(side, side)` in [0, 1]: the middles of whole photographs, or
    images of a data set; of the test photographs also scikit-image's camera."""
    if source != "photographs":
        images = square_images(source, split=split, count=3, side=side)
        return {f"{source} {i}": image @ GRAY for i, image in enumerate(images)}
    whole = {name: image @ GRAY for name, image in photographs(split).items()}
    if split == "test":
        import skimage.data

        whole["camera"] = np.float32(skimage.data.camera()) / 255
    return {name: middle(image, side) for name, image in whole.items()}


def middle(image, side):
    """Returns the square in an image's middle, or what there is of it."""
    top, left = (max(0, length - side) // 2 for length in image.shape)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def training_patches(source, patch_size, count, *, seed):
    """Returns `(count, p p)` patches of the gray training images, their means taken away."""
    rng, found = np.random.default_rng(seed), []
    images = gray_images(source, "train", 512)
    for image in images.values():
        patches = overlapping_patches(image, patch_size)
        rows, columns = (rng.integers(n, size=-(-count // len(images))) for n in patches.shape[:2])
        found.append(patches[rows, columns])
    found = np.concatenate(found)[:count]
    return found - found.mean(-1, keepdims=True)


def quality(original, image, where=None):
    """Returns PSNR in dB (over the pixels `where`, or all) and SSIM of an image in [0, 1]."""
    from skimage.metrics import structural_similarity

    image = np.clip(image, 0, 1)
    squared = (np.float64(image) - original) ** 2
    mean = np.mean(squared if where is None else squared[where])
    return {
        "psnr": float(-10 * np.log10(mean)),
        "ssim": float(structural_similarity(original, image, data_range=1.0)),
    }
