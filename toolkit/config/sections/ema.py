"""`train.ema_config`: the moving average of the trained weights."""

from toolkit.config.section import Section, planned, works


class EmaSection(Section):
    """`train.ema_config`."""

    use_ema: bool = works(False, "Sample and save a moving average of the weights; it is kept when a run resumes.")
    ema_decay: float = works(0.999, "Share of the old average that each step keeps.", ge=0, lt=1)
    use_feedback: bool = planned(False, "Pull the weights toward the average.", needs="use_ema")
    param_multiplier: float = planned(1.0, "Factor of the averaged weights.", needs="use_ema")
