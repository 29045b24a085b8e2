"""Every decision the studio takes; no torch and no gradio here."""
