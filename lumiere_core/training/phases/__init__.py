"""What each phase trains; one module each.

A module has DEFAULTS (what differs from `TrainOptions`) and `build(arguments, options, config)`, which returns
the phase with its networks, loaded or fresh; one with options of its own has a class `Options` for them.
`PHASES` holds their names, in the order they are trained in.
"""

PHASES = ("text", "image", "temporal", "ssr", "condition", "style")
