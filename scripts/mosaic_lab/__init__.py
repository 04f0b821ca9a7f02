"""The library behind the programs in `scripts/` and the command `mosaic`.

`core` and `stories` stand on the ground; `training` on them; `evaluation`, `hub` and `babistories` on that;
`benchmark` and a folder for each experiment beside those; `programs`, one module per command, on top of all.
"""
