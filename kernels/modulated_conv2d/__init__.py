"""Modulated convolution of StyleGAN2 with everything that follows it in a layer."""
