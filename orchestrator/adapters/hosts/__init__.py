"""All hosts together: links, surveys, images, break-glass. On top of docker and ssh."""
