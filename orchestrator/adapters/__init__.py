"""Each package adapts one technology and turns its errors into ours."""
