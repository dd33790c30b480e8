"""Questions about a picture and its marked regions, answered by a small vision-language model."""
