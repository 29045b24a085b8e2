"""What is shown: components and wiring; a handler calls one service."""

from studio.ui import fast

fast.import_gradio()
