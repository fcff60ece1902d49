"""The parts that the embedded model is built from: tokenizers, random text encoders, and the VAE's training."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from toolkit.assets import shapes
from toolkit.assets.tiny_text import TEXT_LENGTH, clip_encoder, clip_tokenizer, encode, t5_encoder, t5_tokenizer
from toolkit.assets.tiny_vae import measure_latents, new_vae, train_decoder, train_vae, training_pictures

CAPTIONS = [shapes.caption(spec) for spec in shapes.all_specs()]
MAKERS = {"clip": clip_tokenizer, "t5": t5_tokenizer}


@pytest.mark.parametrize("kind", MAKERS)
def test_tokenizer_keeps_words_whole_and_spells_the_others(kind: str):
    tokenizer = MAKERS[kind](CAPTIONS)
    assert len(tokenizer.tokenize("small red circle")) == 3
    unknown = [tokenizer(word).input_ids for word in ("mochi", "zorb", "Zorb", "42", "a-b")]
    assert len({tuple(ids) for ids in unknown if ids}) >= 4
    assert tokenizer.unk_token_id not in tokenizer("mochi", add_special_tokens=False).input_ids
    assert len(tokenizer("a large mochi on a yellow background").input_ids) <= TEXT_LENGTH


@pytest.mark.parametrize("kind", MAKERS)
def test_tokenizer_comes_back_from_its_folder(kind: str, tmp_path: Path):
    tokenizer = MAKERS[kind](CAPTIONS)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (CAPTIONS[0], "a mochi, twice!"):
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == TEXT_LENGTH and loaded(text, padding="max_length", truncation=True).input_ids == ids


def test_random_encoders_tell_words_and_their_places_apart():
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(CAPTIONS), t5_tokenizer(CAPTIONS)
    texts = [*CAPTIONS, "a mochi on a red background", "a zorb on a red background"]
    pooled, sequence = encode(texts, (clip, clip_encoder(clip)), (t5, t5_encoder(t5)))
    assert torch.pdist(pooled).min() > 0.1 * torch.pdist(pooled).median()
    assert torch.pdist(sequence.flatten(1)).min() > 0.1 * torch.pdist(sequence.flatten(1)).median()
    on_blue = CAPTIONS.index("a small red circle on a blue background")
    on_red = CAPTIONS.index("a small blue circle on a red background")
    as_figure, as_ground = sequence[on_blue, 2], sequence[on_red, 6]
    assert (as_figure - as_ground).norm() > 0.3 * as_figure.norm()


def test_vae_learns_and_its_decoder_goes_on_alone():
    torch.manual_seed(0)
    vae, pictures, losses = new_vae(), training_pictures(32, seed=0), []
    train_vae(vae, pictures, 12, 0, losses.append)
    encoder = {name: weight.clone() for name, weight in vae.encoder.state_dict().items()}
    decoder = {name: weight.clone() for name, weight in vae.decoder.state_dict().items()}
    train_decoder(vae, pictures, 2, 0, losses.append)
    assert all(torch.equal(weight, encoder[name]) for name, weight in vae.encoder.state_dict().items())
    assert not all(torch.equal(weight, decoder[name]) for name, weight in vae.decoder.state_dict().items())
    measure_latents(vae, pictures)
    latents = vae.encode(pictures.float() / 127.5 - 1).latent_dist.mean
    normalized = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert normalized.mean().abs() < 1e-3 and abs(normalized.std() - 1) < 1e-3
    assert [line.split()[0] for line in losses] == ["12/12", "2/2"]
