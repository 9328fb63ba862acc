"""How the street scenes of the embedded data set are drawn, one concern a file; :mod:`.scene` puts them together."""
