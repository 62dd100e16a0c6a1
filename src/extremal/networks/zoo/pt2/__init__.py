"""Archives of `torch.export.save`, read and run without unpickling."""
