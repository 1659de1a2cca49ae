# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What scdoc writes, as mandoc -T lint wants it: no paragraph that is empty, no long line, a title in capitals. And where
# the title would begin to hyphenate again, it is told not to: nobody can search for a name that is cut in two.

/^\.(nf|TS)$/ { literal = 1 }
/^\.(fi|TE)$/ { literal = 0 }
/^\.nh$/ { next }
/^\.TH / { $2 = toupper($2); $0 = $0 "\n.nh" }

# What can be typed has minuses, which are neither shown as hyphens nor broken at.
literal && !/^\./ { gsub(/-/, "\\-") }
!literal {
    line = ""
    while (match($0, /\\fB[^\\]*-[^\\]*\\fR/)) {
        name = substr($0, RSTART, RLENGTH)
        gsub(/-/, "\\-", name)
        line = line substr($0, 1, RSTART - 1) name
        $0 = substr($0, RSTART + RLENGTH)
    }
    $0 = line $0
}

# A paragraph begins where something follows it.
/^\.P$/ { paragraph = 1; next }
paragraph && /^\.RE$/ { print; next }
paragraph && !/^\.S[HS]/ && last !~ /^\.(TH|SH|SS)/ { print ".P" }
{ paragraph = 0; last = $0 }

# A line is broken at a space, where what follows does not begin like a roff request.
!literal && !/^[.']/ {
    line = ""
    n = split($0, words, " ")
    for (i = 1; i <= n; i++) {
        if (line != "" && length(line) + length(words[i]) >= 80 && words[i] !~ /^[.']/) {
            print line
            line = ""
        }
        line = line (line == "" ? "" : " ") words[i]
    }
    print line
    next
}
{ print }
