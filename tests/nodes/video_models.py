"""Very small video models of the host, by its own classes, with random weights; and its VAEs without
networks."""

import unittest.mock

import torch

WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 48,
    "out_dim": 16,
    "in_dim": 16,
    "num_heads": 2,
    "ffn_dim": 64,
    "num_layers": 1,
    "patch_size": (1, 2, 2),
    "freq_dim": 32,
    "text_dim": 24,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
}
LTX = {
    "image_model": "ltxv",
    "in_channels": 128,
    "cross_attention_dim": 32,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "caption_channels": 24,
    "num_layers": 1,
}
HUNYUAN = {
    "image_model": "hunyuan_video",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "vec_in_dim": 24,
    "axes_dim": [4, 6, 6],
    "context_in_dim": 24,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 256,
    "qkv_bias": True,
    "guidance_embed": False,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
COSMOS = {
    "image_model": "cosmos",
    "max_img_h": 32,
    "max_img_w": 32,
    "max_frames": 32,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 32,
    "block_config": "FA-CA-MLP",
    "concat_padding_mask": True,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": False,
    "pos_emb_interpolation": "crop",
    "block_x_format": "THWBD",
    "affline_emb_norm": True,
    "use_adaln_lora": True,
    "adaln_lora_dim": 8,
    "num_blocks": 1,
    "num_heads": 2,
    "crossattn_emb_channels": 24,
    "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}
MOCHI = {
    "image_model": "mochi_preview",
    "depth": 1,
    "patch_size": 2,
    "num_heads": 2,
    "hidden_size_x": 32,
    "hidden_size_y": 16,
    "mlp_ratio_x": 384.0,  # the host wants 12288 of them
    "mlp_ratio_y": 2.0,
    "learn_sigma": False,
    "in_channels": 12,
    "qk_norm": True,
    "qkv_bias": False,
    "out_bias": True,
    "attn_drop": 0.0,
    "patch_embed_bias": True,
    "posenc_preserve_area": True,
    "timestep_mlp_bias": True,
    "attend_to_padding": False,
    "timestep_scale": 1000.0,
    "use_t5": True,
    "t5_feat_dim": 24,
    "t5_token_length": 4,
    "rope_theta": 10000.0,
}
S2V = {**WAN, "model_type": "s2v", "audio_dim": 16, "cond_dim": 16, "audio_inject_layers": [0]}
KANDINSKY = {
    "image_model": "kandinsky5",
    "in_visual_dim": 16,
    "out_visual_dim": 16,
    "in_text_dim": 24,
    "in_text_dim2": 24,
    "time_dim": 16,
    "model_dim": 32,
    "ff_dim": 32,
    "visual_embed_dim": 132,
    "num_text_blocks": 1,
    "num_visual_blocks": 1,
    "axes_dims": (4, 6, 6),
}
# name: (class in comfy.supported_models, its configuration, channels of a latent)
KINDS = {
    "Wan": ("WAN21_T2V", WAN, 16),
    "LTX": ("LTXV", LTX, 128),
    "Hunyuan": ("HunyuanVideo", HUNYUAN, 16),
    "Cosmos": ("CosmosT2V", COSMOS, 16),
    "Mochi": ("GenmoMochi", MOCHI, 12),
}
TEXT_WIDTH = 24
# name: (network that is left out, what a state dict must hold for the host to know this VAE, with its shapes).
VAES = {
    "Wan": (
        "comfy.ldm.wan.vae.WanVAE",
        {
            "decoder.middle.0.residual.0.gamma": (8,),
            "decoder.head.0.gamma": (8,),
            "decoder.head.2.weight": (3, 8),
            "encoder.conv1.weight": (8, 3),
        },
    ),
    "LTX": (
        "comfy.ldm.lightricks.vae.causal_video_autoencoder.VideoVAE",
        {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (512, 1)},
    ),
    "Hunyuan": ("comfy.sd.AutoencoderKL", {"decoder.conv_in.conv.weight": (8, 16), "post_quant_conv.weight": (16, 16)}),
    "Cosmos": ("comfy.ldm.cosmos.vae.CausalContinuousVideoTokenizer", {"decoder.unpatcher3d.wavelets": (2,)}),
    "Mochi": ("comfy.ldm.genmo.vae.model.VideoVAE", {"blocks.2.blocks.3.stack.5.weight": (1,)}),
    "MiniMax": (
        "comfy.ldm.minimax.vae.MiniMaxH3VideoVAE",
        {"decoder.transformer_blocks.0.scale1": (1,), "encoder.down.5.block.0.conv1.weight": (1,)},
    ),
    "SD1.5": (
        "comfy.sd.AutoencoderKL",
        {
            "decoder.conv_in.weight": (512, 4, 3, 3),
            "encoder.down.2.downsample.conv.weight": (1,),
            "quant_conv.weight": (8, 8),
            "post_quant_conv.weight": (4, 4),
        },
    ),
    "sound": ("comfy.ldm.ace.vae.music_dcae_pipeline.MusicDCAE", {"vocoder.backbone.channel_layers.0.0.bias": (1,)}),
}


def random_model(kind, unet_config):
    """Return a very small MODEL of one of the host's kinds, with random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, kind)(dict(unet_config))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    torch.manual_seed(0)
    for parameter in model.diffusion_model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu)


def video_model(name):
    """Return (MODEL, channels of its latents) of a name in `KINDS`."""
    kind, unet_config, channels = KINDS[name]
    return random_model(kind, unet_config), channels


class NoNetwork(torch.nn.Module):
    """In place of a VAE's network."""

    def __init__(self, *args, **kwargs):
        super().__init__()


def vae(name):
    """Return the host's VAE object of a name in `VAES`, with the host's own rules of its sizes; it cannot encode."""
    import comfy.sd

    network, shapes = VAES[name]
    with unittest.mock.patch(network, NoNetwork):
        return comfy.sd.VAE(sd={key: torch.zeros(shape) for key, shape in shapes.items()})


def prompt(width=TEXT_WIDTH, **values):
    """Return a conditioning of random text states."""
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(1, 4, width, generator=generator), values]]
