#!/bin/bash
# Types the same keys into `geul chat` and into bash's readline, each in a tmux pane of the same size, and compares the
# two screens cell by cell and the cursors: typing, inserting, deleting, moving and wrapping, Hangul, decomposed Hangul
# and emoji, at 40, 60 and 90 columns and under several TERMs; then resizing, pasting, and what bash has no like of.
# Exit code 77: skipped, no tmux.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
geul=${GEUL_BUILD:-$root/build}/geul
model=$root/share/geul-mini.gguf
command -v tmux >/dev/null || { echo "needs tmux"; exit 77; }
[ -x "$geul" ] && [ -f "$model" ] || { echo "needs $geul and $model"; exit 77; }
export LC_ALL=C.UTF-8

dir=$(mktemp -d)
socket=geul-line-$$
tm() { tmux -L "$socket" -f /dev/null "$@"; }
cleanup() { tm kill-server 2>/dev/null; rm -rf "$dir"; }
trap cleanup EXIT
failures=0 compared=0

# Sessions are named with a colon behind: without one tmux prefers a window of that name.

# ---- panes ---------------------------------------------------------------------------------------

# The cursor and the screen's rows, without white space at their ends and empty rows at the bottom.
screen()
{
    local text
    text=$(tm display-message -p -t "$1:" 'cursor #{cursor_x},#{cursor_y}' ';' capture-pane -p -t "$1:" 2>&1)
    sed 's/ *$//' <<<"$text"
}

empty=$'cursor 2,0\n>'

# start NAME COLUMNS TERM COMMAND: a pane of 12 rows with nothing but the prompt.
start()
{
    tm new-session -d -s "$1" -x "$2" -y 12 \
        "stty -echoctl; env -i HOME='$dir' TERM=$3 PATH='$PATH' LC_ALL=C.UTF-8 ASAN_OPTIONS='${ASAN_OPTIONS:-}' $4; sleep 60"
    tm set-option -t "$1:" status off
    tm resize-window -t "$1:" -x "$2" -y 12
    until_screen "$1" "the prompt" "$empty"
}
start_bash() { start "$1" "$2" tmux-256color "bash --norc -c 'while read -e -r -p \"> \" line; do :; done'"; }
start_geul() { start "$1" "$2" "$3" "'$geul' chat -m '$model' --seed 1 2>'$dir/stderr'"; }

# until_screen NAME WHAT PATTERN: waits up to 20 seconds until the screen matches, white space aside at the ends of rows.
until_screen()
{
    local i now
    for i in $(seq 400); do
        now=$(screen "$1")
        # shellcheck disable=SC2053
        [[ $now == $3 ]] && return 0
        sleep 0.05
    done
    echo "FAIL $1, $2: the screen is"
    sed 's/^/    | /' <<<"$now"
    echo "    and should be like"
    sed 's/^/    | /' <<<"$3"
    failures=$((failures + 1))
    return 1
}

# press NAME KEYS...: names of tmux, or text after "=".
press()
{
    local pane=$1 key
    shift
    for key in "$@"; do
        case $key in
        =*) tm send-keys -t "$pane:" -l "${key#=}" ;;
        ~*) tm send-keys -t "$pane:" -H ${key#\~} ;;
        *) tm send-keys -t "$pane:" "$key" ;;
        esac
    done
}

# ---- cases that bash knows -----------------------------------------------------------------------

h=가나다라마바사아자차카타파하            # 28 columns
nfd=$'\u1112\u1161\u11ab\u1100\u1173\u11af' # decomposed 한글, 4 columns
long=$h$h$h$h                            # 112 columns
mixed="a가b나c다d라e마f바g사h아i자j차k카l타m파n하" # 42 columns, characters across every margin

# A name, what the line holds at the end (bash is waited for until its screen does), and the keys.
cases=(
    "typing|가나다라|=가나다라"
    "inserting at the beginning|마가나다라|=가나다라 Home =마"
    "inserting in the middle|가나마다라|=가나다라 Left Left =마"
    "inserting narrow before wide|가나xy다라|=가나다라 Left Left =x =y"
    "deleting in the middle|가나라|=가나다라 Left BSpace"
    "deleting forwards|나다라|=가나다라 Home DC"
    "moving|가나다라|=가나다라 Home Right Right"
    "deleting all but one|하|=가나다하 Home DC DC DC"
    "killing to the end|가나|=가나다라 Left Left C-k"
    "killing and yanking|다라가나|=가나다라 Left Left C-u End C-y"
    "a word back|나라말|=나라말 Space =한글 C-w BSpace"
    "decomposed|가${nfd}나|=가$nfd =나"
    "decomposed, a syllable deleted|가${nfd:0:3}|=가$nfd BSpace"
    "decomposed, inserted into|${nfd:0:3}나${nfd:3}|=$nfd Left =나"
    "decomposed, deleted before|가$nfd|=가나$nfd Home Right DC"
    "a letter with two marks|cafe|=cafe$(printf '\u0301\u0323') BSpace =e"
    "emoji|😀가😀|=😀가😀"
    "emoji deleted|😀😀|=😀가😀 Left BSpace"
    "emoji inserted|가🙂나|=가나 Left =🙂"
    "wrapping|$long|=$long"
    "wrapping of mixed widths|$mixed$mixed|=$mixed =$mixed"
    "inserting into wrapped lines|x$long|=$long Home =x"
    "inserting wide into wrapped lines|힣$mixed$mixed|=$mixed$mixed Home =힣"
    "inserting and deleting in wrapped lines|$long|=$long Home =x =y BSpace BSpace"
    "deleting from wrapped lines|${mixed:1}$mixed|=$mixed$mixed Home DC"
    "shrinking by a row|$h|=$h$h BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace BSpace"
    "decomposed over wrapped lines|$nfd$nfd$h$h$nfd|=$nfd$nfd$h$h$nfd Home Right"
    "emoji across the margin|x😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀|=x😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀"
    "the middle of wrapped lines|$long|=$long Left Left Left Left Left Left Left Left Left Left =가 BSpace"
)

# What the screen without its cursor and without line breaks must hold before bash is taken at its word.
flat() { sed 1d <<<"$1" | tr -d ' \n'; }

# run_case PANE CASE: clears the line and presses the keys.
run_case()
{
    local keys
    IFS='|' read -r _ _ keys <<<"$2"
    press "$1" End C-u
    until_screen "$1" "an empty line" "$empty" || press "$1" C-c
    # shellcheck disable=SC2086
    press "$1" $keys
}

# The screens of bash at a width, which every TERM of geul is compared with.
record_bash()
{
    local i before now want
    start_bash bash "$1"
    for i in "${!cases[@]}"; do
        IFS='|' read -r _ want _ <<<"${cases[i]}"
        run_case bash "${cases[i]}"
        before=
        for _ in $(seq 200); do
            now=$(screen bash)
            [ "$now" = "$before" ] && [ "$(flat "$now")" = ">${want// /}" ] && break
            before=$now
            sleep 0.05
        done
        recorded[i]=$now
    done
    tm kill-session -t bash:
}

# compare COLUMNS TERM STEP: every STEP-th case.
compare()
{
    local i name now
    start_geul geul "$1" "$2"
    for ((i = 0; i < ${#cases[@]}; i += $3)); do
        name=${cases[i]%%|*}
        run_case geul "${cases[i]}"
        for _ in $(seq 60); do
            now=$(screen geul)
            [ "$now" = "${recorded[i]}" ] && break
            sleep 0.05
        done
        compared=$((compared + 1))
        [ "$now" = "${recorded[i]}" ] && continue
        echo "FAIL $name, $1 columns, TERM=$2: bash | geul"
        paste -d '|' <(sed 's/^/    /;s/$/ /' <<<"${recorded[i]}") <(sed 's/^/ /' <<<"$now")
        failures=$((failures + 1))
    done
    tm kill-session -t geul:
}

tm new-session -d -s keep "sleep 600" # the server ends with its last session
recorded=()
for width in 40 60 90; do
    record_bash $width
    compare $width tmux-256color 1
    [ $width = 40 ] && for term in screen xterm-256color vt100 linux; do compare 40 $term 4; done
done


# ---- a window that changes -----------------------------------------------------------------------

# The rows from the prompt on, and the cursor's row counted from there: what is above moves with the window.
frame() { screen "$1" | awk 'NR == 1 { split($2, at, ","); next } /^>/ { seen = 1 } !seen { above++; next }
                             { rows = rows "\n" $0 } END { print at[1] "," at[2] - above rows }'; }

# resize COLUMNS...: what stands in geul's line after the window had these widths is what bash shows at the last one.
resize()
{
    local width last want now
    last=${*: -1}
    tm new-session -d -s bash -x "$last" -y 12 "TERM=tmux-256color bash --norc -c 'seq 4; read -e -p \"> \"'; sleep 60"
    tm new-session -d -s geul -x "$1" -y 12 \
        "seq 4; env -i HOME='$dir' TERM=tmux-256color '$geul' chat -m '$model' --temp 0 2>/dev/null; sleep 60"
    for pane in bash geul; do
        tm set-option -t "$pane:" status off
        tm resize-window -t "$pane:" -x "$([ $pane = bash ] && echo "$last" || echo "$1")" -y 12
        until_screen $pane "the prompt" $'*4\n>'
        press $pane "=$nfd$mixed$mixed" =😀 Left Left
    done
    for width in "$@"; do
        tm resize-window -t geul: -x "$width" -y 12
        sleep 0.3 # the next width comes when this one has been seen
    done
    for _ in $(seq 60); do
        want=$(frame bash) now=$(frame geul)
        [ "$want" = "$now" ] && break
        sleep 0.05
    done
    compared=$((compared + 1))
    if [ "$want" != "$now" ]; then
        echo "FAIL after the widths $*: bash | geul"
        paste -d '|' <(sed 's/^/    /;s/$/ /' <<<"$want") <(sed 's/^/ /' <<<"$now")
        failures=$((failures + 1))
    fi
    press geul Enter
    until_screen geul "the answer below the question" "*"$'\n'"${want#*$'\n'}"$'\n[!>]*\n>'
    tm kill-session -t bash:
    tm kill-session -t geul:
}
resize 60 40
resize 40 60 90
resize 90 60 40 90 60
resize 60 90 40 60 90 40

# ---- what bash has no like of --------------------------------------------------------------------

# ask NAME WHAT QUESTION KEYS...: these keys ask this question, in the form JSON has it, and nothing else.
ask()
{
    local what=$1 question=$2 saved
    shift 2
    press geul "=/reset" Enter "$@"
    rm -f "$dir/saved.json"
    until_screen geul "$what" $'*\n>'
    press geul "=/save $dir/saved.json" Enter
    for _ in $(seq 200); do [ -s "$dir/saved.json" ] && break || sleep 0.05; done
    saved=$(tr -d '\n' <"$dir/saved.json" | grep -o '"question": *"[^}]*"answer"' | sed 's/"question": *//; s/, *"answer"$//')
    compared=$((compared + 1))
    [ "$saved" = "\"$question\"" ] && return
    echo "FAIL $what: the questions are $saved"
    failures=$((failures + 1))
}
paste_text() # paste_text TEXT: as the terminal sends it, in brackets
{
    printf '%b' "$1" | tm load-buffer -
    tm paste-buffer -p -r -t geul:
}

start_geul geul 60 tmux-256color
paste_text '첫째\r\n  둘째\n셋째'
until_screen geul "a paste" $'cursor 6,2\n> 첫째\n|   둘째\n| 셋째'
press geul C-c
ask "a paste is one question" '첫째\n  둘째\n셋째' "~1b 5b 32 30 30 7e" =첫째 "~0d 0a" "=  둘째" "~0a" =셋째 "~0d" "~1b 5b 32 30 31 7e" Enter
ask "quotes" '하나 \"둘\"\n셋' '="""' Enter '=하나 "둘"' Enter '=셋' Enter '="""' Enter
ask "a backslash" '하나\n둘' '=하나\' Enter =둘 Enter
ask "Alt-Enter" '하나\n둘' =하나 M-Enter =둘 Enter
ask "history brings back all lines" '하나\n둘셋' Up Up Up =셋 Enter
ask "Up within a text" '하x나\n둘' =하나 M-Enter =둘 Up =x Enter
tm kill-session -t geul:

touch "$dir/대화.json" "$dir/대화록.json"
start_geul geul 60 tmux-256color
press geul =/sy Tab
until_screen geul "Tab completes a command" $'*\n> /system'
press geul C-u "=/load $dir/대" Tab
until_screen geul "Tab completes a file's name" "*대화"
press geul Tab
until_screen geul "Tab lists them" $'*대화.json    대화록.json\n*대화'
press geul C-u "=/set te" Tab =0.5 Enter
until_screen geul "Tab completes a setting" $'*temp is 0.5.\n>'
tm kill-session -t geul:

# A dumb terminal shows one row; the vertical bar is where the cursor is.
start_geul geul 40 dumb
press geul "=$h$h" Home
until_screen geul "a dumb terminal" $'cursor 2,0\n> 가나다라마바사아자차카타파하가나다라'
press geul Right BSpace =x
until_screen geul "a dumb terminal, edited" $'cursor 3,0\n> x나다라마바사아자차카타파하가나다라마'
press geul C-k =$nfd BSpace =나 Left
until_screen geul "a dumb terminal, decomposed" $'cursor 5,0\n> x\u1112\u1161\u11ab나'
tm kill-session -t geul:

[ "$failures" = 0 ] && echo "$compared screens and questions as they should be"
exit $((failures > 0))
