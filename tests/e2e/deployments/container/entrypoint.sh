#!/bin/bash
# What an image runs: `serve` starts the server with the image's configuration, anything else is a command of the user's.
set -e

if [[ "$1" == serve ]]; then
    torchserve --start --ts-config /home/model-server/config.properties --disable-token-auth
else
    eval "$@"
fi

# The container stays up whatever becomes of the server.
exec tail -f /dev/null
