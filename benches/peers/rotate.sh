#!/bin/sh
# The five steps as an operator writes them by hand, for one host: `sudo sh -c SCRIPT rotate DIR DIGEST`, the token on its
# standard input. What ssh and the bare russh program send; it looks at nothing before and takes nothing back.
set -eu
umask 077
dir=$1 digest=$2
token=$dir/data/infisical-token-auth-token
env=$dir/runner.env

# Back up
cp -p "$token" "$dir/backups/token"
sync "$dir/backups/token" "$dir/backups"

# Place
new=$(mktemp "$dir/data/.token.XXXXXX")
chown 1000:1000 "$new"
cat >"$new"
sync "$new"
mv -f "$new" "$token"
sync "$dir/data"

# Point
new=$(mktemp "$dir/.env.XXXXXX")
chmod --reference="$env" "$new"
chown --reference="$env" "$new"
sed "s|^INFISICAL_TOKEN_AUTH_FILE=.*|INFISICAL_TOKEN_AUTH_FILE=$token|" "$env" >"$new"
sync "$new"
mv -f "$new" "$env"
sync "$dir"

# Restart, verify
toyctl restart "$dir"
toyctl verify "$dir" "$digest"
