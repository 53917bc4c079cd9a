"""Three feature planes, a small decoder, ray marching: an image of features without the samples in memory."""
