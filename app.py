"""Entry for `python app.py`, `gradio app.py` and Spaces: builds the page and serves it, nothing else."""

from studio.studio import Studio
from studio.ui.app import create, launch

studio = Studio()
demo = create(studio)

if __name__ == "__main__":
    launch(studio, demo)
