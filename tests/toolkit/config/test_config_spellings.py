"""What users write is read as meant, with one notice each; the same without a notice where ai-toolkit reads it too."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest

from toolkit.config import JobConfig, load, validate
from toolkit.config.spelling import matches
from toolkit.config.spellings import SPELLINGS

Changed = Callable[..., dict[str, Any]]


def value_at(process: Any, path: str) -> Any:
    def step(value: Any, key: str) -> Any:
        if isinstance(value, list):
            return value[int(key)]
        return value[key] if isinstance(value, dict) else getattr(value, key)

    return reduce(step, path.split("."), process)


CASES: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    # what is written, what it means, the one notice (or "" for none, None for several)
    ({"train": {"gradient_clipping": 0.5}}, {"train.max_grad_norm": 0.5},
     "train.gradient_clipping: read as train.max_grad_norm"),
    ({"train": {"gradient_clip_norm": 0.5}}, {"train.max_grad_norm": 0.5},
     "train.gradient_clip_norm: read as train.max_grad_norm"),
    ({"train": {"mixed_precision": "fp16"}}, {"train.dtype": "fp16"}, "train.mixed_precision: read as train.dtype"),
    ({"train": {"mixed_precision": "fp16", "dtype": "bf16"}}, {"train.dtype": "bf16"},
     "train.mixed_precision: has no effect, because train.dtype is set"),
    ({"train": {"optimizer_args": {"weight_decay": 0.1}}}, {"train.optimizer_params": {"weight_decay": 0.1}},
     "train.optimizer_args: read as train.optimizer_params"),
    ({"train": {"dataloader_num_workers": 6}, "datasets": [{}, {"folder_path": "b"}]},
     {"datasets.0.num_workers": 6, "datasets.1.num_workers": 6},
     "train.dataloader_num_workers: read as datasets.0.num_workers"),
    ({"train": {"lr_warmup_steps": 150}},
     {"train.lr_scheduler": "constant_with_warmup", "train.lr_scheduler_params": {"num_warmup_steps": 150}},
     "train.lr_warmup_steps: read as lr_scheduler_params.num_warmup_steps, with constant_with_warmup"),
    ({"train": {"warmup_steps": 150, "lr_scheduler": "cosine"}},
     {"train.lr_scheduler": "cosine_with_warmup", "train.lr_scheduler_params": {"num_warmup_steps": 150}},
     "train.warmup_steps: read as lr_scheduler_params.num_warmup_steps, with cosine_with_warmup"),
    ({"train": {"warmup_steps": 0}}, {"train.lr_scheduler": "constant"}, "train.warmup_steps: not needed"),
    ({"train": {"lr_scheduler": "polynomial", "lr_scheduler_params": {"power": 2}}},
     {"train.lr_scheduler": "polynomial"}, ""),
    ({"train": {"lr_scheduler": "cosine_with_warmup",
                "lr_scheduler_params": {"num_warmup_steps": 300, "num_training_steps": 6000}}},
     {"train.lr_scheduler": "cosine_with_warmup"}, ""),
    ({"train": {"lr_scheduler": "Cosine"}}, {"train.lr_scheduler": "cosine"}, ""),
    ({"train": {"optimizer": "AdamW8bit"}}, {"train.optimizer": "adamw8bit"}, ""),
    ({"train": {"optimizer": "prodigyopt"}}, {"train.optimizer": "prodigy"}, "train.optimizer: read as 'prodigy'"),
    ({"train": {"optimizer": {"type": "adamw", "lr": 2e-4, "weight_decay": 0.1}}},
     {"train.optimizer": "adamw", "train.lr": 2e-4, "train.optimizer_params": {"weight_decay": 0.1}},
     "train.optimizer: a group of keys; read as train.optimizer, train.lr and train.optimizer_params"),
    ({"train": {"optimizer_params": {"betas": "0.9,0.99"}}}, {"train.optimizer_params.betas": [0.9, 0.99]},
     "train.optimizer_params.betas: a text; read as [0.9, 0.99]"),
    ({"train": {"use_8bit_adam": True}}, {"train.optimizer": "adamw8bit"},
     "train.use_8bit_adam: read as `optimizer: adamw8bit`"),
    ({"train": {"use_8bit_adam": False}}, {"train.optimizer": "adamw"}, "train.use_8bit_adam: not needed"),
    ({"train": {"linear_timesteps": True}}, {"train.timestep_type": "weighted"},
     "train.linear_timesteps: read as `timestep_type: weighted`"),
    ({"train": {"linear_timesteps": False}}, {"train.timestep_type": None}, ""),
    ({"train": {"linear_timesteps2": True, "timestep_type": "sigmoid"}}, {"train.timestep_type": "weighted2"},
     "train.linear_timesteps2: read as `timestep_type: weighted2`"),
    ({"train": {"enable_ttb": False}}, {}, "train.enable_ttb: not needed: it is off"),
    ({"log_config": {"log_every": 1}}, {"logging.log_every": 1}, "log_config: read as logging"),
    ({"logging": {"wandb_project": "p"}}, {"logging.project_name": "p"},
     "logging.wandb_project: read as logging.project_name"),
    ({"logging": {"wandb_run_name": "r"}}, {"logging.run_name": "r"},
     "logging.wandb_run_name: read as logging.run_name"),
    ({"logging": {"log_every": None}}, {"logging.log_every": 1}, "logging.log_every: logged every step"),
    ({"network_kwargs": {"only_if_contains": ["a"]}}, {"network.network_kwargs.only_if_contains": ["a"]},
     "network_kwargs: read as network.network_kwargs"),
    ({"network": {"only_if_contains": ["a"]}}, {"network.network_kwargs.only_if_contains": ["a"]},
     "network.only_if_contains: read as network.network_kwargs.only_if_contains"),
    ({"network": {"network_kwargs": {"exclude_if_contains": ["a"]}}},
     {"network.network_kwargs.ignore_if_contains": ["a"]},
     "network.network_kwargs.exclude_if_contains: read as network.network_kwargs.ignore_if_contains"),
    ({"network": {"network_kwargs": None}}, {"network.network_kwargs.only_if_contains": None}, ""),
    ({"network": {"linear_dropout": 0.1}}, {"network.dropout": 0.1}, "network.linear_dropout: read as network.dropout"),
    ({"network": {"type": "lierla"}}, {"network.type": "lora"}, "network.type: read as 'lora', its newer name"),
    ({"network": {"type": "adalora"}}, {"network.type": "lora"},
     "network.type: there is no AdaLoRA; read as 'lora', as ai-toolkit does"),
    ({"network": {"type": "loraplus"}}, {"network.type": "lora", "network.loraplus_lr_ratio": 16.0},
     "network.type: read as `type: lora` with `loraplus_lr_ratio: 16` (ai-toolkit trains a plain LoRA)"),
    ({"network": {"type": "lora+", "loraplus_lr_ratio": 4}}, {"network.type": "lora", "network.loraplus_lr_ratio": 4.0},
     "network.type: read as `type: lora` with `loraplus_lr_ratio: 4`"),
    ({"network": {"rank": 8, "linear_alpha": 8}}, {"network.linear": 8}, ""),
    ({"network": {"alpha": 3.0}}, {"network.linear_alpha": 16.0},
     "network.alpha: has no effect, because network.linear_alpha is set"),
    ({"network": {"alpha": 16, "linear_alpha": None}}, {"network.linear_alpha": 16.0}, ""),
    ({"model_kwargs": {}}, {"model.model_kwargs": {}}, "model_kwargs: read as model.model_kwargs"),
    ({"model": {"arch": None, "is_flux": True}}, {"model.arch": "flux"}, "model.is_flux: read as `arch: flux`"),
    ({"model": {"is_flux": True}}, {"model.arch": "flux"}, ""),
    ({"model": {"is_flux": False, "is_v2": False}}, {"model.arch": "flux"}, ""),
    ({"model": {"is_xl": True}}, {"model.arch": "flux"},
     "model.is_xl: has no effect, because model.arch is set to flux"),
    ({"model": {"arch": "flux:dev"}}, {"model.arch": "flux"}, ""),
    ({"model": {"arch": "flex1:dev"}}, {"model.arch": "flux"}, ""),
    ({"model": {"arch": "chroma", "name_or_path": "lodestones/Chroma"}},
     {"model.name_or_path": "lodestones/Chroma/chroma-unlocked-v50.safetensors"}, ""),
    ({"model": {"arch": "chroma", "name_or_path": "lodestones/Chroma/v28"}},
     {"model.name_or_path": "lodestones/Chroma/chroma-unlocked-v28.safetensors"}, ""),
    ({"model": {"arch": "chroma", "name_or_path": "lodestones/Chroma1-HD"}},
     {"model.name_or_path": "lodestones/Chroma1-HD"}, ""),
    ({"network": {"type": "LoRA"}}, {"network.type": "lora"}, ""),
    ({"network": {"type": "LierLa"}}, {"network.type": "lora"}, "network.type: read as 'lora', its newer name"),
    ({"model": {"arch": "wan22_14b_t2v"}}, {"model.arch": "wan22_14b"}, "model.arch: read as 'wan22_14b'"),
    ({"model": {"arch": "wan22_14b:t2v"}}, {"model.arch": "wan22_14b"}, ""),
    ({"model": {"arch": "flex1"}}, {"model.arch": "flux"}, ""),
    ({"model": {"quantize": "qfloat8"}}, {"model.quantize": True, "model.qtype": "qfloat8"},
     "model.quantize: read as `quantize: true` with `qtype: qfloat8`"),
    ({"model": {"quantize": "qint4", "qtype": "qint8"}}, {"model.quantize": True, "model.qtype": "qint8"},
     "model.quantize: read as `quantize: true`"),
    ({"model": {"use_safetensors": True}}, {}, "model.use_safetensors: not needed: it is always so"),
    ({"model": {"local_files_only": False}}, {}, "model.local_files_only: not needed"),
    ({"save": {"use_safetensors": True}}, {}, "save.use_safetensors: not needed"),
    ({"save": {"safe_serialization": True}}, {}, "save.safe_serialization: not needed"),
    ({"save": {"save_every": 0}}, {"save.save_every": 0}, "save.save_every: saved only at the end"),
    ({"save": {"save_every": None}}, {"save.save_every": 0}, "save.save_every: saved only at the end"),
    ({"save": {"dtype": "bfloat16"}}, {"save.dtype": "bf16"}, ""),
    ({"device": ["cuda:0", "cuda:1"]}, {"device": "cuda:0"},
     "device: a list, but one process uses one device: 'cuda:0'"),
    ({"datasets": [{"repeats": 3}]}, {"datasets.0.num_repeats": 3},
     "datasets.0.repeats: read as datasets.0.num_repeats"),
    ({"datasets": [{"flip_aug": True}]}, {"datasets.0.flip_x": True}, "datasets.0.flip_aug: read as datasets.0.flip_x"),
    ({"datasets": [{"shuffle_caption": True}]}, {"datasets.0.shuffle_tokens": True},
     "datasets.0.shuffle_caption: read as datasets.0.shuffle_tokens"),
    ({"train": {"lr_scheduler": "cosine", "lr_scheduler_params": {"warmup_steps": 5}}},
     {"train.lr_scheduler_params": {"num_warmup_steps": 5}},
     "train.lr_scheduler_params.warmup_steps: read as train.lr_scheduler_params.num_warmup_steps"),
    ({"datasets": [{"pin_memory": False}]}, {}, "datasets.0.pin_memory: not needed"),
    ({"datasets": [{"caption_type": "caption"}]}, {"datasets.0.caption_ext": "caption"}, ""),
    ({"datasets": [{"caption_ext": "filename"}]}, {"datasets.0.caption_ext": "filename"},
     "datasets.0.caption_ext: captions are taken from the names of the pictures"),
    ({"datasets": [{"resolution": [1024, 1024]}]}, {"datasets.0.resolution": [1024]},
     "datasets.0.resolution: equal sizes count once: [1024]"),
    ({"datasets": [{"resolution": [512, 1024]}]}, {"datasets.0.resolution": [512, 1024]}, ""),
    ({"model": {"qtype": "uint4|owner/repo/adapter.safetensors"}},
     {"model.qtype": "qint4", "model.accuracy_recovery_adapter": "owner/repo/adapter.safetensors"}, None),
    ({"model": {"qtype": "uint3"}}, {"model.qtype": "qint4"}, "model.qtype: read as 'qint4', the nearest type here"),
    ({"model": {"qtype_te": "uint8"}}, {"model.qtype_te": "qint8"},
     "model.qtype_te: read as 'qint8', the nearest type here"),
    # the DreamBooth scripts, inside the section and beside it
    ({"dreambooth": {"instance_data_dir": "b", "class_data_dir": "c", "prior_loss_weight": 0.5, "class_prompt": "x",
                     "with_prior_preservation": True}},
     {"datasets.1.folder_path": "b", "dreambooth.class_folder": "c", "dreambooth.prior_weight": 0.5}, None),
    ({"instance_data_dir": "b", "class_data_dir": "c", "prior_loss_weight": 0.5, "with_prior_preservation": False,
      "instance_prompt": "ohwx x", "class_prompt": "x", "num_class_images": 7, "sample_batch_size": 2},
     {"dreambooth.class_folder": "c", "dreambooth.prior_weight": 0, "dreambooth.instance_prompt": "ohwx x",
      "dreambooth.class_prompt": "x", "dreambooth.num_class_images": 7, "dreambooth.sample_batch_size": 2}, None),
    ({"dreambooth": {"class_prompt": "x", "prior_weight": 1.0}, "prior_loss_weight": 0.5},
     {"dreambooth.prior_weight": 1.0}, "prior_loss_weight: has no effect, because dreambooth.prior_weight is set"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "meant", "notice"), CASES)
def test_spelling(changed: Changed, written: dict[str, Any], meant: dict[str, Any], notice: str | None) -> None:
    config = validate(load(changed(**written)))
    for path, value in meant.items():
        assert value_at(config.processes[0], path) == value
    if notice is None:
        assert len(config.notices) > 1
    elif notice:
        (found,) = config.notices
        assert str(found).startswith(notice)
    else:
        assert not config.notices


def test_every_row_of_the_table_is_tried(changed: Changed) -> None:
    tried = set()
    for written, _, _ in CASES:
        document = load(changed(**written))
        for index, spelling in enumerate(SPELLINGS):
            paths = matches(document, ("config", "process", 0), spelling.path)
            tried |= {index for path in paths if spelling.applies(document.get(path))}
    untried = {spelling.path for index, spelling in enumerate(SPELLINGS) if index not in tried}
    families_without_a_plugin = {path for path in untried if path.startswith("model.is_")}
    assert untried - families_without_a_plugin == {
        "network.ignore_if_contains",  # as only_if_contains
        "train.lr_warmup_steps",  # 0, as warmup_steps
        "model.quantize_te",  # as quantize
    }


@pytest.mark.parametrize(
    ("flags", "arch"),
    [
        ({"is_xl": True, "is_ssd": True}, "ssd"),
        ({"is_xl": True, "is_vega": True}, "vega"),
        ({"is_pixart": True, "is_pixart_sigma": True}, "pixart_sigma"),
        ({"is_v3": True}, "sd3"),
        ({"is_v2": True, "is_v_pred": True}, "sd2"),
        ({"is_xl": True, "is_v_pred": True}, "sdxl"),
    ],
)
def test_the_most_special_old_flag_counts(changed: Changed, flags: dict[str, bool], arch: str) -> None:
    config = validate(load(changed(model={"arch": None, **flags})))
    assert value_at(config.processes[0], "model.arch") == arch
    assert any(str(notice).endswith(f"read as `arch: {arch}`") for notice in config.notices)


def test_what_is_set_once_holds_further_inside(read: Callable[..., JobConfig], changed: Changed) -> None:
    datasets = [{}, {"folder_path": "b", "trigger_word": "own"}]
    process: Any = read(trigger_word="tok", train={"cache_text_embeddings": True}, datasets=datasets).processes[0]
    assert [dataset.trigger_word for dataset in process.datasets] == ["tok", "own"]
    assert [dataset.cache_text_embeddings for dataset in process.datasets] == [True, True]
    assert process.name == "test_lora"

    data = changed(training_folder=None)
    data["config"].update(training_folder="elsewhere", device="cpu", log_dir="logs")
    process = validate(load(data)).processes[0]
    assert (process.training_folder, process.device, process.log_dir) == ("elsewhere", "cpu", "logs")


def test_a_notice_names_the_line_of_what_was_written(folder: Any, minimal: str) -> None:
    (folder / "job.yaml").write_text(minimal.replace("arch: flux", "is_flux: true"), encoding="utf-8")
    (notice,) = validate(load("job.yaml")).notices
    assert str(notice) == "job.yaml:14: model.is_flux: read as `arch: flux`"
