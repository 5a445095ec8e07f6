package solve_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// stmt is a statement of a script: a line, or one with a body, as open and end say.
type stmt struct {
	line      string
	open, end string // "then" and "fi", "do" and "done"
	then, alt []*stmt
}

// script renders statements. What a script says of its errors is part of what it says.
func script(list []*stmt) string {
	var b strings.Builder
	b.WriteString("exec 2>&1\n")
	render(&b, list, "")
	b.WriteString("exit 0\n")
	return b.String()
}

func render(b *strings.Builder, list []*stmt, indent string) {
	for _, s := range list {
		if s.open == "" {
			b.WriteString(indent + s.line + "\n")
			continue
		}
		b.WriteString(indent + s.line + "; " + s.open + "\n" + indent + "\t:\n")
		render(b, s.then, indent+"\t")
		if len(s.alt) > 0 {
			b.WriteString(indent + "else\n")
			render(b, s.alt, indent+"\t")
		}
		b.WriteString(indent + s.end + "\n")
	}
}

// author writes scripts. Nothing in them depends on times, inode numbers, or the order of a listing.
type author struct {
	rnd    *rand.Rand
	places []string // paths that may be there when the script runs
	dirs   []string // those of them that may be directories
	loops  int
}

// known notes a path.
func (a *author) known(p string, dir bool) {
	if p = path.Join("/", p); p == "/" {
		return // copied into itself, it is what the order of a listing makes of it
	}
	a.places = append(a.places, p)
	if dir {
		a.dirs = append(a.dirs, p)
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// path gives a word for something that may be there.
func (a *author) path() string {
	if a.loops > 0 && !chance(a.rnd, 3) {
		return `"$f"`
	}
	switch n := a.rnd.IntN(20); {
	case n < 13:
		return quote(pick(a.rnd, a.places))
	case n < 15:
		return a.dir()
	case n < 19:
		return quote(path.Join(pick(a.rnd, a.dirs), pick(a.rnd, slices.Concat(fileNames, dirNames))))
	}
	return quote(pick(a.rnd, []string{"/w", "/w/new", "/out", "/x/m", "/etc/passwd", "."}))
}

func (a *author) dir() string {
	if a.loops > 0 && chance(a.rnd, 3) {
		return `"$f"`
	}
	return quote(pick(a.rnd, a.dirs))
}

// fresh gives a word for something to be made.
func (a *author) fresh() string {
	p := path.Join(pick(a.rnd, append([]string{"/w", "/w", "/w/n"}, a.dirs...)), pick(a.rnd, []string{"new", "new2", "a", "d", "e"}))
	a.known(p, chance(a.rnd, 2))
	return quote(p)
}

func (a *author) block(n int) []*stmt {
	var out []*stmt
	for range n {
		out = append(out, a.stmt())
	}
	return out
}

func (a *author) stmt() *stmt {
	switch n := a.rnd.IntN(20); {
	case n < 8:
		return &stmt{line: "{ " + a.read() + "; }" + a.sink()}
	case n < 16:
		return &stmt{line: a.write()}
	case n < 18:
		s := &stmt{line: "if " + a.condition(), open: "then", end: "fi", then: a.block(1 + a.rnd.IntN(2))}
		if chance(a.rnd, 2) {
			s.alt = a.block(1 + a.rnd.IntN(2))
		}
		return s
	case n < 19 && a.loops == 0:
		line := "for f in " + a.dir() + "/" + pick(a.rnd, []string{"*", "*", "a*", "?", ".h", "*/*", "[a-c]"})
		a.loops++
		body := a.block(1 + a.rnd.IntN(2))
		a.loops--
		return &stmt{line: line, open: "do", end: "done", then: body}
	}
	if chance(a.rnd, 2) {
		return &stmt{line: a.read()}
	}
	return &stmt{line: pick(a.rnd, []string{"cd " + a.dir() + "; pwd -P", "test -e " + a.path() + " || exit 0", "set -f", "umask 077", "grep -q longer " + a.path() + " && exit 3"})}
}

// sink says where what was read goes.
func (a *author) sink() string {
	switch n := a.rnd.IntN(10); {
	case n < 4:
		return ""
	case n < 8:
		return fmt.Sprintf(" >> /out/log%d 2>&1", a.rnd.IntN(3))
	case n < 9:
		return " > /w/seen" + fmt.Sprint(a.rnd.IntN(2))
	}
	return " 2>&1 | md5sum"
}

func (a *author) condition() string {
	switch a.rnd.IntN(4) {
	case 0:
		return "grep -q " + pick(a.rnd, []string{"one", "two", "x", "longer"}) + " " + a.path()
	case 1:
		return "cmp -s " + a.path() + " " + a.path()
	case 2:
		return `test -n "$( ` + a.read() + ` )"`
	}
	return "test -" + pick(a.rnd, strings.Split("efdxhrwsugkcL", "")) + " " + a.path()
}

func (a *author) read() string {
	p, d := a.path(), a.dir()

	return pick(a.rnd, []func() string{
		func() string { return "cat " + p },
		func() string { return "cat " + p },
		func() string { return "head -c 2 " + p },
		func() string {
			return "{ test -" + pick(a.rnd, strings.Split("efdxhrwsugk", "")) + " " + p + " && echo yes || echo no; }"
		},
		func() string { return a.condition() + " && echo yes || echo no" },
		func() string { return "stat -c '%F %a %u %g' " + p },
		func() string { return "probe statx " + p },
		func() string { return "probe stat " + p },
		func() string { return "probe opath " + p },
		func() string { return "readlink " + p },
		func() string { return "realpath " + p },
		func() string { return "ls -a " + p },
		func() string { return "ls -ap " + d },
		func() string { return "echo " + d + "/*" },
		func() string { return "echo " + d + "/" + pick(a.rnd, []string{"a*", "*/a", "?", "[!a]*", ".*h"}) },
		func() string { return "find " + d + " 2>&1 | sort" },
		func() string { return "find " + d + " -type " + pick(a.rnd, []string{"f", "d", "l"}) + " 2>&1 | sort" },
		func() string {
			return "find " + d + " -name " + pick(a.rnd, []string{"'a*'", "d", "b"}) + " 2>&1 | sort"
		},
		func() string {
			return "find " + d + " -perm " + pick(a.rnd, []string{"-100", "-4000", "644"}) + " | sort"
		},
		func() string { return "find " + d + " -type f -links +1 2>&1 | sort" },
		func() string { return "find " + d + " -maxdepth 1 -type f -size -8c 2>&1 | sort" },
		func() string { return "find " + d + " -user 1000 2>&1 | sort" },
		func() string { return "find -L " + d + " -maxdepth 2 2>&1 | sort" },
		func() string {
			return "grep -rl " + pick(a.rnd, []string{"one", "o", "run"}) + " " + d + " 2>&1 | sort"
		},
		func() string { return "grep -r two " + d + " 2>&1 | sort" },
		func() string { return "wc -c " + p },
		func() string { return "md5sum " + p },
		func() string { return "cmp " + p + " " + a.path() },
		func() string { return "diff -r " + p + " " + a.path() + " 2>&1 | head -c 600" },
		func() string { return "( . " + p + " )" },
		func() string { return p },
		func() string { return "probe getxattr " + p + " user." + pick(a.rnd, []string{"x", "y"}) },
		func() string { return "probe listxattr " + p },
		func() string { return "probe access " + p + " " + fmt.Sprint(a.rnd.IntN(8)) },
		func() string { return "probe mmap " + p },
		func() string { return "probe seek " + p },
		func() string { return "probe readdir " + p },
		func() string { return "( cd " + p + " && pwd -P && cat ../a )" },
		func() string { return "tar -c -f - " + d + " 2>&1 | tar -t -f - 2>&1 | sort" },
		func() string { return "du -a " + d + " 2>&1 | cut -f 2 | sort" },
	})()
}

func (a *author) write() string {
	p, q, d := a.path(), a.path(), a.dir()
	mode := pick(a.rnd, []string{"755", "600", "u+x", "go-rwx", "a+w", "4711", "0"})
	return pick(a.rnd, []func() string{
		func() string { return "echo made > " + p },
		func() string { return "echo more >> " + p },
		func() string { return "true >> " + p },
		func() string { return "cat " + p + " > " + a.fresh() },
		func() string { return short(p) + " >> " + q },
		func() string { return "cp " + p + " " + q },
		func() string { return "cp -a " + p + " " + a.fresh() },
		func() string { return "cp -a " + d + " " + a.fresh() },
		func() string { return "cp -r " + d + "/. " + a.fresh() },
		func() string { return "cp -rL " + p + " " + a.fresh() },
		func() string { return "cp -l " + p + " " + q },
		func() string { return "mv " + p + " " + q },
		func() string { return "mv " + p + " " + a.fresh() },
		func() string { return "mv " + d + " " + a.fresh() },
		func() string { return "mv " + d + "/* /w" },
		func() string { return "rm -f " + p },
		func() string { return "rm -rf " + p },
		func() string { return "rm -rf " + d + " && mkdir " + d },
		func() string { return "rm -rf " + p + " && echo again > " + p },
		func() string { return "rm -f " + d + "/*" },
		func() string { return "find " + d + " -type f -name 'a*' -exec rm {} +" },
		func() string { return "find " + d + " -type d -exec chmod a+x {} +" },
		func() string { return "mkdir -p " + p },
		func() string { return "mkdir -p " + a.fresh() + "/d/e" },
		func() string { return "mkdir " + p },
		func() string { return "rmdir " + p },
		func() string { return "ln " + p + " " + a.fresh() },
		func() string { return "ln " + p + " " + q },
		func() string { return "ln -s " + quote(pick(a.rnd, a.places)) + " " + a.fresh() },
		func() string { return "ln -sf ../a " + p },
		func() string { return "ln -sfn " + d + " " + a.fresh() },
		func() string { return "chmod " + mode + " " + p },
		func() string { return "chmod -R " + mode + " " + d },
		func() string { return "chown " + pick(a.rnd, []string{"7:7", "1000", ":7"}) + " " + p },
		func() string { return "chown -h 7 " + p },
		func() string { return "chown -R 1000:1000 " + d },
		func() string { return "touch " + p },
		func() string { return "touch -c " + p },
		func() string { return "truncate -s " + pick(a.rnd, []string{"0", "3", "9"}) + " " + p },
		func() string { return "truncate -c -s 2 " + p },
		func() string { return "sed -i s/o/0/ " + p + " 2>&1 | wc -l" }, // it names its temporary file
		func() string { return "tar -c -f /t/.tar -C " + d + " .; tar -x -f /t/.tar -C /t; rm -f /t/.tar" },
		func() string { return "mkdir -p " + a.fresh() + "; cp -a " + d + "/. /w" },
		func() string { return "dd if=" + p + " of=" + a.fresh() + " bs=3 count=1 2>&1 | grep records" },
		func() string { return "probe setxattr " + p + " user.x " + pick(a.rnd, []string{"1", "new"}) },
		func() string { return "probe removexattr " + p + " user.x" },
		func() string { return "probe rename " + p + " " + q },
		func() string { return "probe rename " + d + " " + a.fresh() },
		func() string { return "probe exchange " + p + " " + q },
		func() string { return "probe noreplace " + p + " " + q },
		func() string { return "probe link " + p + " " + a.fresh() },
		func() string { return "probe truncopen " + p },
		func() string { return "probe rwopen " + p },
		func() string { return "probe excl " + p },
		func() string { return "probe mapwrite " + p },
		func() string { return "probe tmplink " + d + " new" },
		func() string { return "probe range " + p + " " + q },
		func() string { return "probe fchmod " + p + " 640" },
		func() string { return "probe rmdir " + p },
		func() string { return "probe mknod " + a.fresh() + " 259" },
		func() string { return "rmdir " + d + "/*; mkdir " + d + "/d && echo in > " + d + "/d/a" },
	})()
}

// short reads so little that a file may be appended to itself.
func short(p string) string { return "head -c 40 " + p }
