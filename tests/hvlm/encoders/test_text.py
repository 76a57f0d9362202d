import logging

import numpy as np
import pytest
import torch

from hvlm.encoders.clip_model import build_model, build_tokenizer, read_spec
from hvlm.encoders.config import ClipConfig
from hvlm.encoders.text import TruncatedText, load_text_encoder
from hvlm.errors import UserError

TINY = "jobs/configs/models/tiny_clip.json"
TEXTS = ["a red square moves left", "a blue circle grows", "a red square moves left"]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder(ClipConfig(model=TINY, pretrained="random", batch_size=2), "cpu")


def test_features_equal_open_clips_encode_text(encoder):
    spec = read_spec(TINY, "random")
    network = build_model(spec, None, seed=0)
    with torch.inference_mode():
        expected = network.encode_text(build_tokenizer(spec)(TEXTS), normalize=False).numpy()
    features = encoder.encode_text(TEXTS)
    assert features.shape == (3, 128) == (3, encoder.dim) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_equal_texts_have_equal_features_and_others_do_not(encoder):
    features = encoder.encode_text(TEXTS)
    np.testing.assert_allclose(features[0], features[2], atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-2


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode_text([]).shape == (0, 128)


def test_long_texts_are_cut_counted_and_logged(encoder, caplog):
    fits, too_long = "dog " * 75, "dog " * 76  # 77 tokens with start and end
    assert encoder.tokenizer.truncated(["dog", fits, too_long]) == [
        TruncatedText(index=2, num_tokens=78, context_length=77)
    ]
    with caplog.at_level(logging.WARNING):
        features = encoder.encode_text([fits, too_long])
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)
    assert "1 of 2 texts were cut to 77 tokens: #1 has 78 tokens" in caplog.text


def test_tokens_are_those_that_the_tower_reads(encoder):
    tokens = encoder.tokenizer.tokens(TEXTS)
    assert tokens.shape == (3, 77) and tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, build_tokenizer(read_spec(TINY, "random"))(TEXTS).numpy())


def test_texts_that_fit_log_nothing(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder.encode_text(TEXTS)
    assert caplog.text == ""


def test_the_image_tower_is_not_kept(encoder):
    assert not any(name.startswith("visual") for name, _ in encoder._network.named_parameters())


def test_a_model_with_another_tokenizer_is_refused():
    with pytest.raises(UserError, match="CLIP's own tokenizer"):
        load_text_encoder(ClipConfig(model="ViT-B-16-SigLIP", pretrained="random"), "cpu")
