# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What zsh completes, in an interactive shell on a terminal: zsh -f complete.zsh DIR LINE, where DIR has the completion.
# Prints the matches for the end of the line, one a line. For units.sh.
setopt extended_glob
zmodload zsh/zpty
setup='
PS1=
unset zle_bracketed_paste
autoload -Uz compinit
compinit -u -D
bindkey "^I" complete-word
comppostfuncs=(exit)
compadd() {
    # with -O, -A or -D it only looks
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a matches
    builtin compadd -O matches "$@"
    print -rl -- "" "match "$^matches
    builtin compadd "$@"
}
print ready'

zpty shell zsh -f -i
zpty -w shell "fpath=(${(q)1} \$fpath)"
zpty -w shell "eval ${(qq)setup}"
while zpty -r shell line && [[ $line != ready* ]]; do :; done
zpty -w -n shell "$2"$'\t'
while zpty -r shell line; do
    line=${line%%[[:space:]]#}
    [[ $line != match\ ?* ]] || print -r -- ${line#match }
done
