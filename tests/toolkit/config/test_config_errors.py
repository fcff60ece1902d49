"""All errors of a file at once, one line each, with file, line, key and what would be right."""

from collections.abc import Callable
from typing import Any

import pytest

from toolkit.config import ConfigError, load, validate
from toolkit.config.choice import load_plugin
from toolkit.config.unknown import OURS
from toolkit.config.walk import homes

Problems = Callable[..., list[str]]
Changed = Callable[..., dict[str, Any]]


def without_known(lines: list[str]) -> list[str]:
    """Without the lists of names, which grow with the extensions that are installed."""
    return [line.partition(" (known: ")[0] for line in lines]


def test_every_error_of_a_file_at_once(problems: Problems) -> None:
    text = """\
job: extension
config:
  name: x
  process:
    - type: sd_trainer
      device: gpu
      model: {name_or_path: "${NOT_SET}", arch: fluks}
      network: {type: loraa}
      network_kwarg: {}
      datasets:
        - folder_path: a
          resolution: [512, a]
          num_repeats: 0
          foo: 1
        - resolution: abc
      train:
        steps: 0
        stepps: 1
        lr: -1
        low_vram: true
        batch_size: two
        dtype: bf17
        optimizer: adamw8bits
        gradient_accumulation: 2
        gradient_accumulation_steps: 2
        loss_type: mean_flow
        learnable_snr_gos: true
        lr_scheduler: cosine
        lr_scheduler_params: {num_cycle: 1, num_warmup_steps: many}
        ema_config: {use_emma: true}
      save: {push_to_hub: true, save_format: safetensor}
      sample: {steps: 20, skip_first_sample: true, samples: [{width: 4}]}
bar: 1
"""
    assert without_known(problems(text)) == [
        "job.yaml:5: training_folder: missing; it is required",
        "job.yaml:6: device: must be auto, cpu, mps, cuda or cuda:N, not 'gpu'",
        "job.yaml:7: model.name_or_path: the environment variable NOT_SET is not set (or write ${NOT_SET:-default})",
        "job.yaml:7: model.arch: no arch is named 'fluks'; did you mean 'flux' or 'flux2'?",
        "job.yaml:8: network.type: no network is named 'loraa'; did you mean 'lora' or 'lokr' or 'loha'?",
        "job.yaml:9: network_kwarg: unknown key; did you mean 'network.network_kwargs'?",
        "job.yaml:12: datasets.0.resolution.1: must be a whole number, not 'a'",
        "job.yaml:13: datasets.0.num_repeats: must be at least 1, not 0",
        "job.yaml:14: datasets.0.foo: unknown key",
        "job.yaml:15: datasets.1.resolution: must be a whole number or a list, not 'abc'",
        "job.yaml:15: datasets.1.folder_path: missing; it is required",
        "job.yaml:17: train.steps: must be at least 1, not 0",
        "job.yaml:18: train.stepps: unknown key; did you mean 'steps'?",
        "job.yaml:19: train.lr: must be more than 0, not -1",
        "job.yaml:20: train.low_vram: unknown key; belongs to model.low_vram",
        "job.yaml:21: train.batch_size: must be a whole number, not 'two'",
        "job.yaml:22: train.dtype: 'bf17' is not one of bf16, fp16, fp32; did you mean 'bf16'?",
        "job.yaml:23: train.optimizer: no optimizer is named 'adamw8bits'; did you mean 'adamw8bit' or 'adamw'?",
        "job.yaml:25: train.gradient_accumulation_steps: is the old name of gradient_accumulation; set one of the two",
        "job.yaml:26: train.loss_type: 'mean_flow' is not supported: the model would have to be told a second time,"
        " the one it goes to, and no model has an input for it",
        "job.yaml:27: train.learnable_snr_gos: not supported: it follows the losses of the last steps, so no run could"
        " be resumed or repeated; use min_snr_gamma",
        "job.yaml:29: train.lr_scheduler_params.num_cycle: lr_scheduler cosine has no such option;"
        " did you mean 'num_cycles'?",
        "job.yaml:29: train.lr_scheduler_params.num_warmup_steps: must be a number from 0 on, not 'many'",
        "job.yaml:30: train.ema_config.use_emma: unknown key; did you mean 'use_ema'?",
        "job.yaml:31: save.save_format: 'safetensor' is not one of safetensors, diffusers; did you mean 'safetensors'?",
        "job.yaml:31: save.hf_repo_id: missing: push_to_hub needs the name of a repository, owner/name",
        "job.yaml:32: sample.samples.0.prompt: missing; it is required",
        "job.yaml:32: sample.samples.0.width: must be at least 16, not 4",
        "job.yaml:32: sample.steps: unknown key; belongs to train.steps; did you mean 'sample_steps'?",
        "job.yaml:32: sample.skip_first_sample: unknown key; belongs to train.skip_first_sample",
        "job.yaml:33: bar: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job: extensoin\nconfig: {name: x, process: [{type: count_images, folder: a, report: b}]}",
         ["job.yaml:1: job: no job kind is named 'extensoin'; did you mean 'extension'?"]),
        ("job: generate\nconfig: {name: x, process: [{type: count_images, folder: a, report: b}]}",
         ["job.yaml:2: type: count_images runs under `job: extension`, not under generate"]),
        ("job: extension\nconfig: {process: []}",
         ["job.yaml:2: config.name: missing: the name of the job (or give one with --name)",
          "job.yaml:2: config.process: missing: the list of processes"]),
        ("job: extension\nconfig: {name: a/b, process: [3, {}, {type: sd_trainr}, {type: super_tagger}]}",
         ["job.yaml:2: config.name: 'a/b' cannot be the name of a folder",
          "job.yaml:2: config.process.0: must be a group of keys, not 3",
          "job.yaml:2: config.process.1.type: missing: the type of the process",
          "job.yaml:2: config.process.2.type: no process type is named 'sd_trainr';"
          " did you mean 'sd_trainer' or 'ui_trainer' or 'diffusion_trainer'?",
          *(f"job.yaml:2: config.process.2.{key}: missing; it is required"
            for key in ("training_folder", "model", "datasets")),
          "job.yaml:2: config.process.3.type: 'super_tagger' of ai-toolkit is not supported yet"]),
        ("job: extension\nconfig: {process: [{type: count_images, folder: a, report: b}], name: " + "\u00e9" * 91 + "}",
         ["job.yaml:2: config.name: is too long: files are named by it; 180 bytes at most"]),
        ("job: extension", ["job.yaml:1: config: missing: the group of keys with `name` and `process`"]),
        ("job: extension\nconfg: {}",
         ["job.yaml:1: config: missing: the group of keys with `name` and `process`",
          "job.yaml:2: confg: unknown key; did you mean 'config'?"]),
        ("job: extension\nconfig: {nmae: x, name: x, process: [{type: count_images, folder: a, report: b}]}\nmeta: 3",
         ["job.yaml:2: config.nmae: unknown key; did you mean 'name'?", "job.yaml:3: meta: must be a group of keys"]),
    ],
)  # fmt: skip
def test_errors_around_the_process(problems: Problems, text: str, expected: list[str]) -> None:
    assert without_known(problems(text)) == expected


def test_a_name_of_another_trainer_is_told_only_where_there_is_such_a_key() -> None:
    """The captioner has `caption_extension` itself, and no data sets."""
    section = {"type": "blip", "path_to_caption": "a"}
    data = {"type": "captioner", "caption": section, "image_dir": "a", "caption_extension": "txt"}
    with pytest.raises(ConfigError) as caught:
        validate(load({"job": "caption", "config": {"name": "x", "process": [data]}}))
    assert str(caught.value).splitlines() == [
        "image_dir: unknown key",
        "caption_extension: unknown key; belongs to caption.caption_extension",
    ]


def test_every_name_of_another_trainer_has_its_key_here() -> None:
    data = {"model": {"arch": "flux"}, "network": {"type": "lora"}}
    places = homes(load_plugin("processes", "sd_trainer"), data)
    known = {f"{place}.{key}".lstrip(".") for place, section in places for key in section.model_fields}
    assert set(OURS.values()) <= known


def test_a_mistyped_process_does_not_hide_other_mistakes(changed: Changed) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(load(changed(type="sd_trainr", train={"stepz": 5}, network={"linear": "x"})))
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["type", "network.linear", "train.stepz"]
    with pytest.raises(ConfigError, match=r"^type: no process type is named 'painter'.*$"):
        validate(load(changed(type="painter", train={"stepz": 5})))


def test_with_several_processes_the_path_says_which(folder: Any, changed: Changed) -> None:
    data = changed()
    process = data["config"]["process"][0]
    data["config"]["process"] = [process, {**process, "train": {"steps": 0}}]
    with pytest.raises(ConfigError) as caught:
        validate(load(data))
    assert str(caught.value) == "config.process.1.train.steps: must be at least 1, not 0"


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"train": {"min_denoising_steps": 500, "max_denoising_steps": 400}},
         "train.min_denoising_steps: must be less than max_denoising_steps, 400"),
        ({"train": {"train_unet": False}}, "train.train_unet: nothing is trained"),
        ({"train": {"train_text_encoder": True, "cache_text_embeddings": True}},
         "train.cache_text_embeddings: cannot be combined with train_text_encoder"),
        ({"train": {"train_text_encoder": True, "unload_text_encoder": True}},
         "train.unload_text_encoder: cannot be combined with train_text_encoder"),
        ({"train": {"train_text_encoder": True}, "datasets": [{"cache_text_embeddings": True}]},
         "datasets.0.cache_text_embeddings: cannot be combined with train.train_text_encoder"),
        ({"train": {"switch_boundary_every": 0}}, "train.switch_boundary_every: must be at least 1, not 0"),
        ({"save": {"key_format": "a1111"}}, "save.key_format: 'a1111' is not one of auto, diffusers, kohya"),
        ({"sample": {"sampler": "eulr"}}, "sample.sampler: 'eulr' is not one of"),
        ({"train": {"start_step": 1000}}, "train.start_step: must be less than steps, 1000"),
        ({"train": {"validation_config": {}}}, "train.validation_config: validation_items is empty"),
        ({"train": {"bypass_guidance_embedding": True, "do_guidance_loss": True}},
         "train.do_guidance_loss: cannot be comb"),
        ({"datasets": [{"cache_text_embeddings": True}, {"folder_path": "b"}]},
         "datasets.1.cache_text_embeddings: all data sets or none can cache text embeddings"),
        ({"datasets": [{"alpha_mask": True, "mask_path": "m"}]}, "datasets.0.alpha_mask: cannot be combined with"),
        ({"datasets": [{"alpha_mask": True, "num_frames": 5}]}, "datasets.0.alpha_mask: videos have no alpha channel"),
        ({"datasets": [{"mask_path": "m", "mask_min_value": 2}]}, "datasets.0.mask_min_value: must be at most 1"),
        ({"datasets": [{"unconditional_path": "m"}]}, "datasets.0.unconditional_path: this trainer does not train on"),
        ({"datasets": [{"clip_image_path": "m"}]}, "datasets.0.clip_image_path: this trainer has no vision adapter"),
        ({"datasets": [{"clip_image_from_same_folder": True}]},
         "datasets.0.clip_image_from_same_folder: this trainer has no vision adapter"),
        ({"datasets": [{"guidance_type": "polar"}]}, "datasets.0.guidance_type: 'polar' is not one of targeted"),
        ({"datasets": [{"captions": "prepend"}]}, "datasets.0.captions: `prepend` needs a default_caption"),
        ({"datasets": [{"replacements": ["a b"]}]}, "datasets.0.replacements: must be `text|other`, not 'a b'"),
        ({"datasets": [{"augmentations": [{"params": {}}]}]}, "datasets.0.augmentations.0.method: missing"),
        ({"datasets": [{"augmentations": [{"method": "Blur", "parms": {}}]}]},
         "datasets.0.augmentations.0.parms: unknown key; did you mean 'params'?"),
        ({"datasets": [{"weight": 0}]}, "datasets.0.weight: must be more than 0"),
        ({"datasets": [{"max_aspect": 0.5}]}, "datasets.0.max_aspect: must be at least 1"),
        ({"datasets": [{"poi": "x"}]}, "datasets.0.poi: not supported: crop the pictures"),
        ({"datasets": [{"controls": ["depth"]}]}, "datasets.0.controls: not supported: make these pictures with a"),
        ({"datasets": [{"do_audio": True}]}, "datasets.0.do_audio: not supported: there is no model here that makes"),
        ({"datasets": [{"type": "video"}]}, "datasets.0.type: 'video' is not one of image"),
        ({"datasets": [{"background": [0, 0]}]}, "datasets.0.background.2: missing"),
        ({"datasets": [{"resolution": []}]}, "datasets.0.resolution: the list is empty"),
        ({"model": {"quantize": True}, "network": None}, "model.quantize: quantized weights cannot be trained"),
        ({"model": {"model_kwargs": {"edit": True}}}, "model.model_kwargs: not supported: no option of this model is"),
        ({"trigger_word": ["tok"]}, "trigger_word: must be text, not ['tok']; text that begins with [ needs quotes"),
        ({"sample": {"prompts": [{"a photo": "a cat"}]}},
         "sample.prompts.0: must be text, not a group of keys; text with a colon in it needs quotes"),
        ({"model": {"split_model_over_gpus": True}}, "model.split_model_over_gpus: not supported yet"),
        ({"model": {"layer_offloading": True}, "network": None}, "model.layer_offloading: layers that are trained"),
        ({"model": {"arch": "f-lite"}}, "model.arch: 'f-lite' of ai-toolkit is not supported yet"),
        ({"model": {"arch": None}}, "model.arch: missing: which one?"),
        ({"model": {"qtype": "qint3"}}, "model.qtype: 'qint3' is not one of qfloat8, qint8, qint4"),
        ({"model": 3}, "model: must be a group of keys"),
        ({"network": {"type": "lorm"}}, "network.type: 'lorm' of ai-toolkit is not supported yet"),
        ({"train": {"optimizer": "automagic"}}, "train.optimizer: 'automagic' of ai-toolkit is not supported yet"),
        ({"train": {"optimizer_params": {"weigth_decay": 1}}},
         "train.optimizer_params.weigth_decay: adamw has no such option; did you mean 'weight_decay'?"),
        ({"train": {"optimizer_params": {"betas": [0.9, 2]}}}, "train.optimizer_params.betas.1: must be less than 1"),
        ({"train": {"steps": "many"}}, "train.steps: must be a whole number, not 'many'"),
        ({"train": {"lr": float("nan")}}, "train.lr: must be a finite number, not nan"),
        ({"train": {"dropout": 0.2}}, "train.dropout: unknown key; belongs to network.dropout"),
        ({"model": {"vae": "autoencoder"}}, "model.vae: unknown key; here it is model.vae_path"),
        ({"model": {"max_memory": {"0": "6GB"}}}, "model.max_memory: unknown key; see model.layer_offloading"),
        ({"validation": {"validate_every": 5}}, "validation: unknown key; here it is train.validation_config"),
        ({"log_every": 5}, "log_every: unknown key; belongs to logging.log_every"),
        # names of other trainers
        ({"network": {"network_dim": 8}}, "network.network_dim: unknown key; here it is network.linear"),
        ({"train": {"max_train_steps": 8}}, "train.max_train_steps: unknown key; here it is train.steps"),
        ({"train": {"network_alpha": 8}}, "train.network_alpha: unknown key; here it is network.linear_alpha"),
        ({"learning_rate": 1e-4}, "learning_rate: unknown key; here it is train.lr"),
        ({"datasets": [{"image_dir": "a"}]}, "datasets.0.image_dir: unknown key; here it is datasets[].folder_path"),
        ({"save": {"output_dir": "a"}}, "save.output_dir: unknown key; here it is training_folder"),
        ({"trigger": "x"}, "trigger: unknown key; belongs to embedding.trigger or adapter.trigger;"
                           " did you mean 'trigger_word'?"),
    ],
)  # fmt: skip
def test_impossible_values(changed: Changed, sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(load(changed(**sections)))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(expected)


def test_a_wrong_value_that_holds_further_inside_is_told_once(problems: Problems, minimal: str) -> None:
    assert problems(minimal.replace("name: test_lora", "device: gpu\n  name: [x]")) == [
        "job.yaml:3: device: must be auto, cpu, mps, cuda or cuda:N, not 'gpu'",
        "job.yaml:4: config.name: must be text, not ['x']",
    ]


def test_unknown_keys_can_be_left_out_with_a_notice(folder: Any, minimal: str) -> None:
    text = minimal.replace("steps: 100", "steps: 100\n        stepps: 3\n        ema_config: {x: {y: 1}}") + "bar: 1\n"
    (folder / "job.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        validate(load("job.yaml"))
    config = validate(load("job.yaml"), allow_unknown=True)
    assert [str(notice) for notice in config.notices] == [
        "job.yaml:12: train.stepps: unknown key, left out",
        "job.yaml:13: train.ema_config.x: unknown key, left out",
        "job.yaml:17: bar: unknown key, left out",
    ]
    with pytest.raises(ConfigError, match=r"train\.lr: must be a number") as caught:
        validate(load("job.yaml", None, ["train.lr=a"]), allow_unknown=True)
    assert len(str(caught.value).splitlines()) == 1


def test_the_document_is_not_changed_by_validation(changed: Changed) -> None:
    document = load(changed(train={"gradient_clipping": 1.0}, trigger_word="tok"))
    before = document.copy()
    validate(document)
    assert document.data == before.data
    assert not document.notices
