"""The --device option that all verbs share."""


def check_device(name: str) -> None:
    """Raise ValueError unless torch can hold tensors on the device of this name."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the device {name!r} cannot be used ({reason}). Use cpu, or cuda on a machine with a GPU."
        ) from error


def tune(name: str) -> None:
    """Let a GPU use its tensor cores for float32 too, and choose its convolutions by trying them.

    For training, where shapes stay the same and gradients are noisy anyway; process-wide.
    """
    import torch

    if torch.device(name).type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
