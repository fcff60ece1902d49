"""The job kinds (`job:` in YAML)."""

KINDS = {
    "extension": "run any process; what most configs say",
    "train": "train a model or a network",
    "generate": "make images with a model",
    "extract": "turn the difference of two models into a network",
    "caption": "write captions for the images of a folder",
    "mod": "change a file of weights",
    "merge": "merge networks and models into one file",
}
