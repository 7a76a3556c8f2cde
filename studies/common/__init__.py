"""What every study needs: data sets, result folders, settings."""
