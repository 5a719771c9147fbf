"""Every name under which Lumiere keeps something in a dictionary of the host, and those of others that it reads.

Nothing else is here, so that `handlers`, `run` and `windows` need not know each other.
"""

from __future__ import annotations

# On a MODEL: key of the wrappers, the additional model (the temporal layers) and the attachment (`Inflation`). In
# transformer_options: the state of one call of the U-Net.
KEY = "lumiere"
# On a MODEL: key of the windows' wrappers and attachment. In transformer_options: the windows of this run.
WINDOWS = "lumiere_windows"
EVOLVED = "ADE"  # AnimateDiff-Evolved's: key of its additional models on a MODEL

# In transformer_options.
RUN = "lumiere_run"  # counts of one sampling run
WINDOW = "lumiere_window"  # rows of the batch that are being denoised
LOOP = "lumiere_loop"  # the clip is a loop: True for a ring in the layers, else its turns; also a MODEL's attachment
LAYERS = "lumiere_layers"  # the temporal layers of the patcher that is running
STRENGTH = "lumiere_strength"  # what Lumiere Motion Strength nodes ask for
CONDITION = "lumiere_known"  # (n, c + 1, h, w) masked condition of this call
OWN_NOISE = "lumiere_own_noise"  # frames have their common noise already
HANDLERS = "forward_timestep_embed_patch"  # the host's: handlers of layer classes, in "patches"
HOST_WINDOW = "context_window"  # of the host's Context Windows: the window that is being denoised
FRAMES = "ad_params"  # AnimateDiff-Evolved's and IPAdapter_plus's: which rows of the whole batch a layer sees

# In a conditioning.
NEEDS_CONDITION = "lumiere_condition"  # without conv_cond it would do nothing
GRAIN = "lumiere_grain"  # frame numbers of a clip's augmentation noise
