"""SAM's parts, built small by the package that ships them, with random weights."""

from functools import partial

import pytest
import torch
from monai.networks.nets import FullyConnectedNet
from torch import nn

from monai_flowssn.networks import GaussianEncoder, SAMDecoder, SAMEncoder
from monai_flowssn.networks.sam import LowRankQV
from monai_flowssn.segmenters import P2SAM, TransportedP2SAM


def small_sam(width=32):
    """As ``segment_anything.build_sam`` builds it, but two narrow blocks, one of them with windows, for images of 128x128."""
    modeling = pytest.importorskip("segment_anything.modeling")
    torch.manual_seed(0)
    vit = modeling.ImageEncoderViT(
        img_size=128,
        embed_dim=24,
        depth=2,
        num_heads=2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        out_chans=width,
        use_rel_pos=True,
        rel_pos_zero_init=False,
        window_size=4,
        global_attn_indexes=(1,),
    )
    prompts = modeling.PromptEncoder(
        embed_dim=width, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=4
    )
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=32, num_heads=2)
    decoder = modeling.MaskDecoder(transformer_dim=width, transformer=transformer)
    nn.init.normal_(vit.pos_embed)
    return modeling.Sam(vit, prompts, decoder).eval()


def test_updates_of_low_rank_start_as_none_and_leave_the_keys_alone():
    torch.manual_seed(0)
    plain = nn.Linear(6, 18)
    x, updated = torch.randn(2, 5, 6), LowRankQV(plain, rank=2)
    torch.testing.assert_close(updated(x), plain(x))
    assert {name for name, p in updated.named_parameters() if p.requires_grad} == {
        f"{part}.{i}.weight" for part in ("down", "up") for i in range(2)
    }
    for up in updated.up:
        nn.init.normal_(up.weight)
    q, k, v = (updated(x) - plain(x)).chunk(3, dim=-1)
    assert not k.any()
    expected = [x @ (up.weight @ down.weight).T for down, up in zip(updated.down, updated.up, strict=True)]
    torch.testing.assert_close(q, expected[0])
    torch.testing.assert_close(v, expected[1])
    with pytest.raises(ValueError, match="rank is 0; .*pass 1 or more"):
        LowRankQV(plain, rank=0)


@torch.no_grad()
def test_the_encoder_is_sam_s_own_at_its_size():
    sam, image = small_sam(), torch.randn(2, 1, 128, 128)
    expected = sam.image_encoder(image.expand(-1, 3, -1, -1))
    torch.testing.assert_close(SAMEncoder(sam.image_encoder)(image), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_decoder_is_sam_s_own_for_its_four_masks():
    sam = small_sam()
    features, prompt = torch.randn(2, 32, 8, 8), torch.randn(2, 32)
    nothing = torch.zeros(1, 0, 32)
    expected = torch.cat(
        [
            sam.mask_decoder.predict_masks(
                image_embeddings=features[i : i + 1],
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=nothing,
                dense_prompt_embeddings=prompt[i, :, None, None].expand(1, -1, 8, 8),
            )[0]
            for i in range(2)
        ]
    )
    masks = SAMDecoder(sam, num_masks=4)(features, prompt)
    assert masks.shape == (2, 4, 128, 128)
    full = nn.functional.interpolate(expected, (128, 128), mode="bilinear")
    torch.testing.assert_close(masks, full, rtol=1e-4, atol=1e-4)
    more = SAMDecoder(sam, num_masks=6)(features, prompt)
    torch.testing.assert_close(more[:, 4:], more[:, :2])  # until training tells them apart


@pytest.mark.parametrize(("kind", "k"), [(P2SAM, 2), (TransportedP2SAM, 3)])
def test_every_part_that_is_trained_gets_a_gradient_on_images_of_other_sizes(kind, k):
    sam, masks = small_sam(), 3
    model = kind(
        SAMEncoder(sam.image_encoder, rank=2),
        SAMDecoder(sam, num_masks=masks * (1 if k == 2 else k)),
        prior=GaussianEncoder(2, 1, 8, channels=(4, 8), convs=1),
        latent_dim=4,
        prompt=FullyConnectedNet(4, 32, [8], act="relu"),
        num_classes=k,
        num_masks=masks,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    image = torch.randn(2, 1, 64, 32)
    model.loss(image, torch.randint(0, k, (2, 3, 64, 32)))["loss"].backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not [
        name for name, p in model.named_parameters() if name in trained and (p.grad is None or not p.grad.any())
    ]
    assert not [
        name for name in trained if name.startswith("encoder.vit") and ".down." not in name and ".up." not in name
    ]
    assert model.eval().sample(image, 2).shape == (2, 2, k, 64, 32)


def test_wrong_images_are_refused():
    encoder = SAMEncoder(small_sam().image_encoder)
    with pytest.raises(ValueError, match="the image has 2 channels; SAM takes 3"):
        encoder(torch.zeros(1, 2, 64, 64))
    with pytest.raises(ValueError, match="pad the image to"):
        encoder(torch.zeros(1, 1, 64, 60))
