"""What a cascade means: pass counts and the derivation of the Fold."""
