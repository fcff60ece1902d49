"""Files of weights as a whole: networks and checkpoints merged, resized, checked. No model is built."""
