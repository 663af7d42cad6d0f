"""Load generator: recorded requests sent through the gateway at the times of a day squeezed into minutes.

It plays the user's application: it also counts which answers satisfied, the feedback that an LLMService reads.
"""
