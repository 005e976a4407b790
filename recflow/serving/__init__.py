"""The HTTP service. ``service`` is the BentoML service, ``app`` its routes, ``schemas`` what they take and give."""
