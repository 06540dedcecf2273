"""What `squeeze doctor` looks at: ComfyUI's folders, the models in them, versions, memory. Nothing is changed."""
