"""Files become pixels: pictures, videos, masks, augmentations and references."""
