"""What plugins may ask of the host: the seam (`api`) and one package for each capability that ships."""
