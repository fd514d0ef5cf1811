#!/bin/bash
# Types Korean into `geul chat` in a real terminal (tmux): wide characters, backspace over them, Ctrl-C during an answer
# and at the prompt, history, commands. Exit code 77: skipped, no tmux or no model.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
geul=${GEUL_BUILD:-$root/build}/geul
command -v tmux >/dev/null || { echo "needs tmux"; exit 77; }
[ -x "$geul" ] || { echo "needs $geul"; exit 77; }

dir=$(mktemp -d)
socket=geul-test-$$
tm() { tmux -L "$socket" -f /dev/null "$@"; }
cleanup() { tm kill-server 2>/dev/null; rm -rf "$dir"; }
trap cleanup EXIT
failures=0

screen() { tm capture-pane -p -J -S -200 -t chat; }
key() { tm send-keys -t chat "$@"; }
text() { tm send-keys -t chat -l "$1"; }

# Waits until the screen matches the pattern (grep -E); slow machines and sanitizers get 60 seconds.
expect() # expect WHAT PATTERN
{
    local i
    for i in $(seq 600); do
        screen | grep -qE -- "$2" && return 0
        sleep 0.1
    done
    echo "FAIL $1: no line matches $2"
    screen | sed 's/^/    | /'
    failures=$((failures + 1))
    return 1
}

# The golden model, whose weights are random, with a template without stop strings, so that answers need not end.
printf '{input}{instruction}\n답: {output}\n' >"$dir/form.txt"
"$geul" convert "$root/tests/golden/full" -o "$dir/model.gguf" --type f32 >/dev/null 2>&1 || { echo "convert failed"; exit 1; }

tm new-session -d -s chat -x 100 -y 40 \
    "env -i HOME='$dir' TERM=screen PATH='$PATH' LC_ALL=POSIX ASAN_OPTIONS='${ASAN_OPTIONS:-}' '$geul' chat -m '$dir/model.gguf' -c 100000 -n 12 --seed 1 --template '$dir/form.txt' --ignore-eos 2>&1; echo LEFT WITH \$?; sleep 60"

expect "start" "template: .*form.txt"
expect "prompt" "^> *$"

# A wide character takes two columns; backspace removes all of it, and the line stays in order.
text "/system 가나다"
key BSpace BSpace
text "라"
expect "backspace over wide characters" "^> /system 가라 *$"
key Left Left
text "힣"
expect "insertion before wide characters" "^> /system 힣가라 *$"
key End BSpace
expect "End" "^> /system 힣가 *$"
tm send-keys -t chat -H 1b 5b 38 7e # End as rxvt sends it, whatever TERM says
text "라"
expect "another terminal's End" "^> /system 힣가라 *$"
key Enter
expect "the system text is set" "precedes the conversation"
text "/system"
key Enter
expect "the system text is whole" "^힣가라 *$"

# An answer, then the same question from the history.
text "안녕하세요"
key Enter
expect "a question" "^> 안녕하세요 *$"
expect "the next prompt" "^> *$"
key Up
expect "history" "^> 안녕하세요 *$"
key C-u
text "/undo"
key Enter
expect "a command" "The last turn has been dropped; 0 turns remain"

# Ctrl-C at the prompt gives the line up, not the program.
text "지워질 줄"
key C-c
expect "Ctrl-C at the prompt" "\^C"

# Ctrl-C during an answer that would take hours.
text "/set predict 90000"
key Enter
expect "a setting" "predict is 90000"
text "끝없이"
key Enter
sleep 1
key C-c
expect "Ctrl-C during an answer" "stopped"
text "/save $dir/saved.json"
key Enter
expect "the program goes on" "1 turn saved"
grep -q "끝없이" "$dir/saved.json" || { echo "FAIL the saved file lacks the question"; failures=$((failures + 1)); }

text "/exit"
key Enter
expect "leaving" "LEFT WITH 0"
grep -q "^안녕하세요$" "$dir/.local/state/geul/history" || { echo "FAIL no history file"; failures=$((failures + 1)); }
[ "$failures" = 0 ] && echo "chat in a terminal: all well"
exit $((failures > 0))
