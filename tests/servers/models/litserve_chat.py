"""Run by .venv-servers: LitServe answering OpenAI chat with scripted tokens. `litserve_chat.py PORT`."""

import sys

import litserve

TOKENS = ("The", " digit", " is", " four", ".")


class Scripted(litserve.LitAPI):
    """Says the same five tokens to everybody."""

    def setup(self, device):
        """Load nothing."""

    def predict(self, prompt):
        """Yield the script."""
        yield from TOKENS


if __name__ == "__main__":
    server = litserve.LitServer(Scripted(spec=litserve.OpenAISpec()), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
