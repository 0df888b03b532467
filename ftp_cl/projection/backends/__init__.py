"""The implementations of FTP's step: plain torch, compiled loops on CPU, kernels on a GPU."""
