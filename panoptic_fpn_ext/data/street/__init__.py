"""How the street scenes of the embedded dataset are drawn, one concern a file; :mod:`.scene` puts them together."""
