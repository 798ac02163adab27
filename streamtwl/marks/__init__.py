"""The user's word on events: right, wrong, or what it was; and what is learnt from it at once."""
