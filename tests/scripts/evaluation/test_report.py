from mosaic_lab.evaluation.report import style_architectures


def test_each_line_of_a_picture_looks_different():
    architectures = [
        f"{kind}, {depth} layers, 10 parameters{suffix}"
        for kind in ("mosaic", "gpt2", "llama")
        for depth in (1, 2, 4)
        for suffix in ("", " (other)")
    ]
    styles = style_architectures(architectures)
    assert list(styles) == architectures
    assert len({tuple(style.values()) for style in styles.values()}) == len(architectures)
