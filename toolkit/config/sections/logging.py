"""`logging`: what is written about a run."""

from toolkit.config.section import Section, idle, works


class LoggingSection(Section):
    """`logging`."""

    log_every: int = works(100, "Steps between two lines of metrics.", ge=1)
    use_wandb: bool = works(False, "Report to Weights & Biases (needs the package wandb).")
    project_name: str = works("ai-toolkit", "Weights & Biases: the project.")
    run_name: str | None = works(None, "Weights & Biases: the run; default: the job's name.")
    use_ui_logger: bool = idle(False, "there is no database; metrics.jsonl is always written", ui=True)
    verbose: bool = idle(False, "ai-toolkit does not read it either")
