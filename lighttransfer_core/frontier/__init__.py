"""The frontier: what rankings of the layers cost in quality as more of the layers stream, over many prompts.

`spec` and `results` are plain data, `summary` is numbers over them; only `sweep` and `render` know the model.
"""
