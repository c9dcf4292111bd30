"""All patches of a gray image, the mean of what they say of each pixel, and how good it is."""

import numpy as np

from experiments.photographs import photographs, random_patches, square_images

GRAY = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601's luma


def overlapping_patches(image, patch_size):
    """Returns the patches `(H - p + 1, W - p + 1, p p)` at every place of an image `(H, W)`."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size))
    return windows.reshape(*windows.shape[:2], -1)


def average(patches, image, *, weight, votes=1):
    """Returns the image `(H, W)` that is nearest to all patches, and `weight` times to `image`.

    The closed form of Elad and Aharon 2006, equation 12.

    Args:
      patches: `(H - p + 1, W - p + 1, p p)`.
      image: `(H, W)`.
      weight: of the image beside a patch, a number or `(H, W)`.
      votes: of each patch, a number or `(H - p + 1, W - p + 1)`.
    """
    h, w = patches.shape[:2]
    p = image.shape[0] - h + 1
    total, count = np.float64(image) * weight, np.zeros(image.shape) + weight
    for i, j in np.ndindex(p, p):
        total[i : i + h, j : j + w] += votes * patches[..., i * p + j]
        count[i : i + h, j : j + w] += votes
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
    images = [image[..., None] for image in gray_images(source, "train", 512).values()]
    patches = random_patches(images, patch_size, count, seed=seed)
    return patches - patches.mean(-1, keepdims=True)


def quality(original, image, where=None):
    """Returns PSNR in dB and SSIM of an image cut to [0, 1], over the pixels `where`, or all."""
    from skimage.metrics import structural_similarity

    image = np.clip(image, 0, 1)
    squared = (np.float64(image) - original) ** 2
    ssim, each = structural_similarity(original, image, data_range=1.0, full=True)
    return {
        "psnr": float(-10 * np.log10(np.mean(squared if where is None else squared[where]))),
        "ssim": float(ssim if where is None else np.mean(each[where])),
    }


def as_bytes(image):
    """Returns an image in [0, 1] as uint8."""
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def rows(points, methods, measure, form):
    """Returns a table's rows, mean and deviation over the seeds of `points[image, level]`."""
    found = []
    for (image, level), seeds in points.items():
        row = [image, level]
        for name in methods:
            values = [point[f"{name}/{measure}"] for point in seeds]
            spread = f" ± {form.format(np.std(values))}" if len(values) > 1 else ""
            row.append(form.format(np.mean(values)) + spread)
        found.append(row)
    return found


def means(points, methods, level, measure):
    """Returns method -> mean over images and seeds, and image -> its best method."""
    mean = {
        image: {name: np.mean([point[f"{name}/{measure}"] for point in seeds]) for name in methods}
        for (image, at), seeds in points.items()
        if at == level
    }
    overall = {name: np.mean([each[name] for each in mean.values()]) for name in methods}
    return overall, {image: max(each, key=each.get) for image, each in mean.items()}


def winners(best):
    """Returns a sentence on which method is best on which image."""
    if len(set(best.values())) == 1:
        return "It is best on every image."
    images = {name: [i for i, n in best.items() if n == name] for name in best.values()}
    each = "; ".join(f"{name} on {' and '.join(where)}" for name, where in images.items())
    return f"Image by image the best is: {each}."
