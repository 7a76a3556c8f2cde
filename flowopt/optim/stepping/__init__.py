"""Steps of a group: what moves together, and how eager torch moves it."""
