"""From a folder of videos to a cache that the trainer reads: find, decode, cut, resize, encode, store."""
