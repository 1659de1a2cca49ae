# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make            the program and the libraries, all below $(BUILD)
# make check      everything that is tested, on a fresh machine too; T=config runs tests/test_config.c alone
# make demo       shows what it does
# make install    DESTDIR, PREFIX
# make deb        the Debian packages; make deb-check tries them
# Also: deps asan fuzz torture mutants bench vm-check vm-torture lint format uninstall clean; V=1 shows the commands

BUILD ?= build
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
COMPLETIONDIR ?= $(DATADIR)/bash-completion/completions
# zsh looks for a distribution's own below /usr, and for the others' below /usr/local.
ZSHDIR ?= $(DATADIR)/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
UNITDIR ?= $(PREFIX)/lib/systemd/system
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
CATALOGDIR ?= $(PREFIX)/lib/systemd/catalog
# The program's own defaults; the units name them.
STATEDIR ?= /var/lib/rbxj
RUNTIMEDIR ?= /run/rbxj

VERSION := 0.1.0
RELEASED := 2026-11-28
SONAME := librbxj.so.0
SHARED := librbxj.so.$(VERSION)

CC ?= cc
AR ?= ar
INSTALL ?= install
JOBS ?= $(shell nproc)
TEST_TIMEOUT ?= 120
TIME = 20

# ---- what is there ----

LIB_SOURCES := $(wildcard src/base/*.c src/journal/*.c src/reaper/*.c)
CLI_SOURCES := $(wildcard src/cli/*.c)
TEST_SOURCES := $(wildcard tests/test_$(or $(T),*).c)
CRASH_SOURCES := $(if $(T),,$(wildcard tests/crash/crash_*.c))
CRASH_PARTS := $(filter-out tests/crash/crash_%.c,$(wildcard tests/crash/*.c))
TEST_SCRIPTS := $(if $(T),,$(sort $(wildcard tests/*.sh)))
FUZZ_SOURCES := $(wildcard fuzz/fuzz_*.c)
BENCH_SCRIPTS := $(sort $(wildcard bench/*.sh))
HEADERS := $(wildcard include/*.h src/*/*.h tests/*.h tests/*/*.h fuzz/*.h)
UNITS := $(wildcard systemd/rbxj-*.in)
RUNBOOK := $(wildcard runbook/*.sh)
MANUALS := $(patsubst man/%.scd,%,$(wildcard man/*.scd))
FUNCTIONS := $(shell sed -n 's/^ *\(rbxj_[a-z_]*\);/\1/p' src/librbxj.map)
C_FILES := $(LIB_SOURCES) $(CLI_SOURCES) $(wildcard tests/*.c tests/*/*.c fuzz/*.c bench/*.c)

LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/%.o)
CLI_OBJECTS := $(CLI_SOURCES:%.c=$(BUILD)/%.o)
TESTS := $(TEST_SOURCES:%.c=$(BUILD)/%)
CRASHERS := $(CRASH_SOURCES:%.c=$(BUILD)/%)
FUZZERS := $(FUZZ_SOURCES:%.c=$(BUILD)/%)
REPLAYERS := $(FUZZ_SOURCES:fuzz/fuzz_%.c=$(BUILD)/fuzz/replay_%)
PROGRAM := $(if $(CLI_SOURCES),$(BUILD)/rbxj)

# ---- what it needs ----

LIB_PACKAGES := lmdb libcjson mount libcgroup libsystemd inih libxxhash
CLI_PACKAGES := $(LIB_PACKAGES) smartcols

DEPS = gcc g++ libc6-dev make pkg-config liblmdb-dev libcjson-dev libmount-dev libcgroup-dev libsystemd-dev \
       libsmartcols-dev libinih-dev libxxhash-dev libcmocka-dev strace util-linux scdoc systemd \
       $(shell command -v python3 >/dev/null || echo python3)
CHECK_DEPS = zsh
LINT_DEPS = clang-format clang-tidy cppcheck mandoc man-db
FUZZ_DEPS = clang
DEB_DEPS = debhelper dpkg-dev
DEB_LINT_DEPS = lintian

# pkg-config is asked when a recipe first needs it, which is after deps, and once.
once = $(eval $(1) := $$(shell $(2)))$($(1))
LIB_CFLAGS = $(call once,LIB_CFLAGS,pkg-config --cflags $(CLI_PACKAGES) cmocka)
LIB_LIBS = $(call once,LIB_LIBS,pkg-config --libs $(LIB_PACKAGES))
CLI_LIBS = $(call once,CLI_LIBS,pkg-config --libs $(CLI_PACKAGES)) -lm
TEST_LIBS = $(call once,TEST_LIBS,pkg-config --libs cmocka)

# ---- flags ----

WARNINGS := -Wall -Wextra -Wundef -Wformat=2 -Wno-format-truncation -Wnested-externs
WARNINGS += $(addprefix -Werror=, implicit-function-declaration implicit-int incompatible-pointer-types \
    int-conversion return-type format format-security shadow vla strict-prototypes missing-prototypes \
    old-style-definition pointer-arith discarded-qualifiers uninitialized array-bounds overflow parentheses \
    sequence-point switch init-self main missing-braces nonnull return-local-addr unused-result)

DEFINES := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -Isrc
OPTIMISE := -O2 -g

# SANITIZE=address,undefined (make asan sets it); FORTIFY and the sanitizers don't go together.
ifdef SANITIZE
HARDENING := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK_HARDENING := -fsanitize=$(SANITIZE)
else
HARDENING := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection
SHARED_CHECK := -Wl,-z,defs
endif

COMPILE = $(CC) -std=gnu11 $(DEFINES) $(LIB_CFLAGS) $(OPTIMISE) -fPIC -pthread $(HARDENING) $(WARNINGS) \
          $(CPPFLAGS) $(CFLAGS) $(EXTRA_CFLAGS)
LINK = $(CC) -pthread $(LINK_HARDENING) -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)

# "  CC file" in place of the command, unless V=1.
say = @$(if $(V),:,printf '  %-4s %s\n' $(1) $@)
quiet := $(if $(V),,@)

# ---- the program and the libraries ----

.PHONY: all
all: $(PROGRAM) $(BUILD)/librbxj.a $(BUILD)/$(SHARED) $(BUILD)/rbxj.pc

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)
	$(quiet)$(COMPILE) -MMD -MP -c -o $@ $<

$(BUILD)/librbxj.a: $(LIB_OBJECTS)
	@mkdir -p $(@D)
	$(call say,AR)
	@rm -f $@
	$(quiet)$(AR) rcs $@ $(LIB_OBJECTS)

$(BUILD)/$(SHARED): $(LIB_OBJECTS) src/librbxj.map
	@mkdir -p $(@D)
	$(call say,LD)
	$(quiet)$(LINK) -shared -Wl,-soname,$(SONAME) -Wl,-z,nodelete -Wl,--version-script=src/librbxj.map $(SHARED_CHECK) \
	    -o $@ $(LIB_OBJECTS) $(LIB_LIBS)
	@ln -sf $(SHARED) $(BUILD)/$(SONAME)
	@ln -sf $(SONAME) $(BUILD)/librbxj.so

$(BUILD)/rbxj: $(CLI_OBJECTS) $(BUILD)/librbxj.a
	$(call say,LD)
	$(quiet)$(LINK) -pie -o $@ $(CLI_OBJECTS) $(BUILD)/librbxj.a $(CLI_LIBS)

# Of another PREFIX each time: always made anew.
.PHONY: FORCE
FILL = sed $(foreach path,PREFIX BINDIR LIBDIR INCLUDEDIR DATADIR STATEDIR RUNTIMEDIR,-e 's|@$(path)@|$($(path))|g') \
       -e 's|@VERSION@|$(VERSION)|' -e 's|@PACKAGES@|$(LIB_PACKAGES)|'
$(BUILD)/rbxj.pc: src/rbxj.pc.in FORCE
	@mkdir -p $(@D)
	@$(FILL) $< >$@

FILLED := $(patsubst %.in,$(BUILD)/%,$(UNITS) systemd/supervisor.conf.in systemd/rbxj.tmpfiles.in)
$(FILLED): $(BUILD)/systemd/%: systemd/%.in systemd/hardening.in FORCE
	@mkdir -p $(@D)
	@sed -e '/^@HARDENING@$$/{r systemd/hardening.in' -e 'd}' $< | $(FILL) >$@

.PHONY: manuals
manuals: $(MANUALS:%=$(BUILD)/man/%)
$(BUILD)/man/%: man/%.scd man/tidy.awk src/librbxj.map Makefile
	@mkdir -p $(@D)
	$(call say,MAN)
	@$(FILL) -e "s|@FUNCTIONS@|$$(echo $(FUNCTIONS) | sed 's/ /, /g')|" $< | SOURCE_DATE_EPOCH=$$(date -u -d $(RELEASED) +%s) scdoc >$@.scdoc && awk -f man/tidy.awk $@.scdoc >$@.new
	@rm $@.scdoc && mv $@.new $@

# ---- tests ----

HARNESS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/harness*.c))

.PHONY: tests
tests: $(TESTS)

$(TESTS): $(BUILD)/tests/%: $(BUILD)/tests/%.o $(HARNESS) $(BUILD)/librbxj.a
	$(call say,LD)
	$(quiet)$(LINK) -pie -o $@ $< $(HARNESS) $(BUILD)/librbxj.a $(CLI_LIBS) $(TEST_LIBS)

# The crash programs (tests/crash/crash.h); a part goes into those that use it.
.PHONY: crashers
crashers: $(CRASHERS)

$(BUILD)/tests/crash.a: $(CRASH_PARTS:%.c=$(BUILD)/%.o)
	$(call say,AR)
	@rm -f $@
	$(quiet)$(AR) rcs $@ $^

$(CRASHERS): $(BUILD)/tests/crash/%: $(BUILD)/tests/crash/%.o $(BUILD)/tests/crash.a $(HARNESS) \
    $(BUILD)/cli.a $(BUILD)/librbxj.a
	$(call say,LD)
	$(quiet)$(LINK) -pie -o $@ $^ $(CLI_LIBS) $(TEST_LIBS)

# The machine whose power is cut (tests/vm/README.md): what goes into it beside rbxj.
VM = $(BUILD)/vm
VM_PROGRAMS := $(addprefix $(BUILD)/vm/programs/, trivial marks many noflush.so)
VM_SCENARIOS := a,b,c,d
VM_FIGURES := nothing,many,deadline
VM_DEPS = qemu-system-x86 mmdebstrap e2fsprogs $(shell command -v python3 >/dev/null || echo python3)

.PHONY: vm-programs
vm-programs: all $(VM_PROGRAMS)

# The package, unless it is newer than all that it is made of.
.PHONY: vm-deb
vm-deb:
	@deb=$$(ls $(BUILD)/deb/rbxj_*.deb 2>/dev/null) && \
	    [ -z "$$(find Makefile src include man systemd completions debian -newer "$$deb" -print -quit)" ] || \
	    $(MAKE) --no-print-directory deb

# A machine whose power is cut: vm-check only=a,d SEED=7; vm-torture N=100; vm-disk IMAGES=200 [NOFLUSH=1]; vm-figures
# only=nothing.
define vm_run
@$(MAKE) --no-print-directory deps
@if $(MAKE) --no-print-directory vm-deps; then \
    $(MAKE) --no-print-directory $(PARALLEL) vm-programs && $(MAKE) --no-print-directory vm-deb && \
    tests/vm/$(1); \
else \
    echo "skipped: the packages to build and run the machine can't be installed"; \
fi
endef

.PHONY: vm-deps vm-check vm-torture vm-disk vm-figures
vm-deps:
	$(call install_missing,$(VM_DEPS))
vm-check:
	$(call vm_run,check.py --dir $(VM) --debs $(BUILD)/deb --only $(or $(only),$(VM_SCENARIOS)) --seed $(or $(SEED),1))
vm-torture:
	$(call vm_run,check.py --dir $(VM) --debs $(BUILD)/deb --torture $(or $(N),60) --seed $(or $(SEED),random))
vm-disk:
	$(call vm_run,check.py --dir $(VM) --debs $(BUILD)/deb --only "" && \
	    tests/vm/disk.py --dir $(VM) --rbxj $(BUILD)/rbxj --images $(or $(IMAGES),200) --seed $(or $(SEED),random) \
	    $(if $(NOFLUSH),--noflush))
vm-figures:
	$(call vm_run,check.py --dir $(VM) --debs $(BUILD)/deb --only "" && tests/vm/figures.py --dir $(VM) \
	    --only $(or $(only),$(VM_FIGURES)))

$(VM)/programs/trivial: tests/vm/trivial.c $(PROGRAM)
	@mkdir -p $(@D)
	$(call say,LD)
	$(quiet)$(LINK) $(WARNINGS) -O2 -pie -fPIE -Wl,--no-as-needed -o $@ $< $(filter-out -lm,$(CLI_LIBS))

$(addprefix $(VM)/programs/, marks many): $(VM)/programs/%: tests/vm/%.c $(BUILD)/librbxj.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(quiet)$(CC) -std=gnu11 $(DEFINES) $(WARNINGS) -O2 -pie -fPIE -pthread -o $@ $< $(BUILD)/librbxj.a $(LIB_LIBS)

$(VM)/programs/noflush.so: tests/vm/noflush.c
	@mkdir -p $(@D)
	$(call say,LD)
	$(quiet)$(CC) $(WARNINGS) -O2 -fPIC -shared -o $@ $<

PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))
ASAN = BUILD=$(BUILD)/asan SANITIZE=address,undefined
RUN_TESTS = RBXJ_BUILD=$(BUILD) TEST_TIMEOUT=$(TEST_TIMEOUT) tests/run

.PHONY: check
check:
	@$(MAKE) --no-print-directory deps tools
	@$(MAKE) --no-print-directory check-deps || echo "check: without $(CHECK_DEPS): some tests are skipped" >&2
	@$(MAKE) --no-print-directory $(PARALLEL) all tests crashers $(if $(T),,replayers manuals)
	@$(MAKE) --no-print-directory $(PARALLEL) $(ASAN) $(if $(PROGRAM),$(BUILD)/asan/rbxj) tests $(if $(T),,replayers)
	@$(RUN_TESTS) $(TESTS) $(TESTS:$(BUILD)/%=$(BUILD)/asan/%) $(TEST_SCRIPTS) $(CRASHERS)

# What a fleet is watched by, unpacked and not installed: nobody wants more servers on his machine. What has no network
# skips the tests that take them.
TOOLS = prometheus prometheus-node-exporter systemd-journal-remote libmicrohttpd12
.PHONY: tools
tools: $(TOOLS:%=build/tools/%.unpacked)
build/tools/%.unpacked:
	@mkdir -p build/tools
	@cd build/tools && apt-get -qq download $* 2>/dev/null && dpkg -x $*_*.deb . && rm -f $*_*.deb && touch $*.unpacked || \
	    echo "tools: no package $* to be had: some tests are skipped" >&2

# The crash programs at every point: hours. Goes on where it was stopped; "make clean" begins anew.
.PHONY: torture
torture:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(PARALLEL) all crashers
	@failed=; for program in $(CRASHERS); do \
	    RBXJ=$(abspath $(BUILD))/rbxj $$program --all --state $$program.state || failed="$$failed $$program"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

# Each rule taken out of a copy of the source in turn, to see a test fail: an hour (tests/mutants.txt).
.PHONY: mutants
mutants:
	@$(MAKE) --no-print-directory deps
	@tests/mutants.py --run

.PHONY: asan
asan:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(PARALLEL) $(ASAN) $(if $(PROGRAM),$(BUILD)/asan/rbxj) tests
	@$(RUN_TESTS) $(TESTS:$(BUILD)/%=$(BUILD)/asan/%)

# Fuzzers (fuzz/fuzz.h), and the same targets with a plain driver, which only reads files: for the findings of old.
.PHONY: fuzzers replayers
fuzzers: $(FUZZERS) $(BUILD)/fuzz/seeds
replayers: $(REPLAYERS) $(BUILD)/fuzz/seeds

# Of the program a fuzzer or a crash program gets the parts that it uses.
$(BUILD)/cli.a: $(filter-out %/main.o,$(CLI_OBJECTS))
	$(call say,AR)
	@rm -f $@
	$(quiet)$(AR) rcs $@ $^

$(BUILD)/fuzz/parts.a: $(BUILD)/fuzz/input.o $(BUILD)/fuzz/data_file.o
	$(call say,AR)
	@rm -f $@
	$(quiet)$(AR) rcs $@ $^

$(FUZZERS): $(BUILD)/fuzz/%: $(BUILD)/fuzz/%.o $(BUILD)/fuzz/parts.a $(BUILD)/cli.a $(BUILD)/librbxj.a
	$(call say,LD)
	$(quiet)$(CC) -pthread -fsanitize=fuzzer,address,undefined -o $@ $^ $(CLI_LIBS)

$(REPLAYERS): $(BUILD)/fuzz/replay_%: $(BUILD)/fuzz/fuzz_%.o $(BUILD)/fuzz/driver.o $(BUILD)/fuzz/parts.a $(BUILD)/cli.a \
    $(BUILD)/librbxj.a
	$(call say,LD)
	$(quiet)$(LINK) -pie -o $@ $^ $(CLI_LIBS)

$(BUILD)/fuzz/seeds: $(BUILD)/fuzz/seeds.o $(BUILD)/fuzz/seeds_text.o $(BUILD)/librbxj.a
	$(call say,LD)
	$(quiet)$(LINK) -pie -o $@ $^ $(LIB_LIBS)

# TIME: seconds for each target, of which $(JOBS) run at once.
.PHONY: fuzz
fuzz:
	@$(MAKE) --no-print-directory deps
	$(call install_missing,$(FUZZ_DEPS))
	@$(MAKE) --no-print-directory $(PARALLEL) CC=clang BUILD=$(BUILD)/clang \
	    SANITIZE=fuzzer-no-link,address,undefined EXTRA_CFLAGS=-Wno-unknown-warning-option fuzzers
	@RBXJ_BUILD=$(BUILD) fuzz/run $(TIME) $(JOBS) $(FUZZ_SOURCES:fuzz/fuzz_%.c=%)

.PHONY: demo
demo:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@RBXJ=$(abspath $(BUILD))/rbxj demo/demo.sh

.PHONY: bench
bench:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@for script in $(BENCH_SCRIPTS); do \
	    echo "== $$script"; RBXJ=$(abspath $(BUILD))/rbxj RBXJ_BUILD=$(BUILD) "$$script" || exit 1; \
	done

# ---- style ----

# cppcheck and the analyzer do not know the cleanup attribute: leaks are LeakSanitizer's.
CPPCHECK = cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr --enable=warning,performance,portability \
           -D__x86_64__ --suppress=missingIncludeSystem --suppress=memleak --suppress=resourceLeak --suppress=uninitdata
TIDY = clang-tidy --quiet --warnings-as-errors='*'

.PHONY: lint
lint:
	@$(MAKE) --no-print-directory deps
	$(call install_missing,$(LINT_DEPS))
	@tests/check-includes.sh
	@$(MAKE) --no-print-directory manuals
	@RBXJ_BUILD=$(BUILD) tests/check-manuals.sh
	clang-format --dry-run -Werror $(C_FILES) $(HEADERS)
	@printf '%s\n' $(C_FILES) | xargs -P $(JOBS) -n 8 $(CPPCHECK) -D_GNU_SOURCE -Iinclude -Isrc
	@printf '%s\n' $(filter-out src/base/error.c,$(C_FILES)) | xargs -P $(JOBS) -I{} \
	    $(TIDY) {} -- -std=gnu11 $(DEFINES) $(LIB_CFLAGS) -include tests/analyzer.h
	@$(TIDY) src/base/error.c -- -std=gnu11 $(DEFINES)

.PHONY: format
format:
	clang-format -i $(C_FILES) $(HEADERS)

# ---- packages ----

# Asks for root only when something is missing.
define install_missing
@missing=; \
command -v dpkg-query >/dev/null || { echo "deps: no dpkg-query here; install by hand: $(1)"; exit 0; }; \
for package in $(1); do \
    case "$$(dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null)" in \
    *" installed") ;; \
    *) missing="$$missing $$package" ;; \
    esac; \
done; \
[ -n "$$missing" ] || exit 0; \
as_root=; \
if [ "$$(id -u)" != 0 ]; then \
    command -v sudo >/dev/null || { echo "deps: missing:$$missing; install them as root" >&2; exit 1; }; \
    as_root=sudo; \
fi; \
echo "deps: installing:$$missing"; \
apt="$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"; \
$$apt update && $$apt install -y --no-install-recommends $$missing >/dev/null || \
    { echo "deps: apt-get could not install:$$missing" >&2; exit 1; }
endef

.PHONY: deps check-deps
deps:
	$(call install_missing,$(DEPS))
check-deps:
	$(call install_missing,$(CHECK_DEPS))

# ---- install ----

PUT = $(INSTALL) -D -m 0644
manual_at = $(DESTDIR)$(MANDIR)/man$(patsubst .%,%,$(suffix $(1)))/$(1)

.PHONY: install
install: all $(FILLED) manuals
	$(if $(PROGRAM),$(INSTALL) -D -m 0755 $(PROGRAM) $(DESTDIR)$(BINDIR)/rbxj)
	$(PUT) $(BUILD)/librbxj.a $(DESTDIR)$(LIBDIR)/librbxj.a
	$(PUT) $(BUILD)/$(SHARED) $(DESTDIR)$(LIBDIR)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/librbxj.so
	$(PUT) include/rbxj.h $(DESTDIR)$(INCLUDEDIR)/rbxj.h
	$(PUT) $(BUILD)/rbxj.pc $(DESTDIR)$(LIBDIR)/pkgconfig/rbxj.pc
	$(foreach page,$(MANUALS),$(PUT) $(BUILD)/man/$(page) $(call manual_at,$(page)) &&) :
	for page in $(FUNCTIONS:%=$(call manual_at,%.3)); do echo '.so man3/librbxj.3' >"$$page" && chmod 0644 "$$page"; done
	$(PUT) completions/rbxj $(DESTDIR)$(COMPLETIONDIR)/rbxj
	$(PUT) completions/_rbxj $(DESTDIR)$(ZSHDIR)/_rbxj
	$(INSTALL) -d $(DESTDIR)$(UNITDIR)
	$(INSTALL) -m 0644 $(UNITS:%.in=$(BUILD)/%) $(DESTDIR)$(UNITDIR)
	$(PUT) $(BUILD)/systemd/rbxj.tmpfiles $(DESTDIR)$(TMPFILESDIR)/rbxj.conf
	$(PUT) systemd/rbxj.catalog $(DESTDIR)$(CATALOGDIR)/rbxj.catalog
	$(PUT) $(BUILD)/systemd/supervisor.conf $(DESTDIR)$(DATADIR)/rbxj/supervisor.conf
	$(PUT) monitoring/rbxj.rules.yml $(DESTDIR)$(DATADIR)/rbxj/rbxj.rules.yml
	$(INSTALL) -m 0755 $(RUNBOOK) $(DESTDIR)$(DATADIR)/rbxj
	@# K33: the state directory is made here or by tmpfiles.d, never by the program.
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then \
	    $(INSTALL) -d -m 0700 -o root -g root $(STATEDIR) && ldconfig; \
	fi

# The state directory stays: it may hold the journal of a crash.
.PHONY: uninstall
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/rbxj $(DESTDIR)$(INCLUDEDIR)/rbxj.h $(DESTDIR)$(LIBDIR)/pkgconfig/rbxj.pc
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/, librbxj.a librbxj.so $(SONAME) $(SHARED))
	rm -f $(foreach page,$(MANUALS) $(FUNCTIONS:%=%.3),$(call manual_at,$(page))) $(DESTDIR)$(COMPLETIONDIR)/rbxj
	rm -f $(DESTDIR)$(ZSHDIR)/_rbxj $(DESTDIR)$(TMPFILESDIR)/rbxj.conf
	rm -f $(patsubst systemd/%.in,$(DESTDIR)$(UNITDIR)/%,$(UNITS)) $(DESTDIR)$(CATALOGDIR)/rbxj.catalog
	rm -f $(addprefix $(DESTDIR)$(DATADIR)/rbxj/, supervisor.conf rbxj.rules.yml) $(RUNBOOK:runbook/%=$(DESTDIR)$(DATADIR)/rbxj/%)
	-rmdir $(DESTDIR)$(DATADIR)/rbxj

# ---- Debian packages ----

# Below $(BUILD)/deb: built from a copy, so that this tree stays as it is.
.PHONY: deb
deb:
	@$(MAKE) --no-print-directory deps
	$(call install_missing,$(DEB_DEPS))
	@rm -rf $(BUILD)/deb && mkdir -p $(BUILD)/deb/rbxj-$(VERSION)
	@tar -c --exclude='./build*' --exclude=./.git . | tar -x -C $(BUILD)/deb/rbxj-$(VERSION)
	cd $(BUILD)/deb/rbxj-$(VERSION) && env -u MAKEFLAGS -u MAKELEVEL DEB_BUILD_OPTIONS=parallel=$(JOBS) \
	    dpkg-buildpackage --unsigned-source --unsigned-changes >../build.log 2>&1 || { tail -n 30 ../build.log; exit 1; }
	@ls $(BUILD)/deb/*.deb

# Builds them, asks lintian, installs, upgrades, removes and purges them in an overlay of this machine.
.PHONY: deb-check
deb-check: deb
	$(call install_missing,$(DEB_LINT_DEPS))
	@RBXJ_DEB=$(BUILD)/deb tests/deb/check.sh

.PHONY: clean
clean:
	rm -rf $(BUILD)

-include $(LIB_OBJECTS:.o=.d) $(CLI_OBJECTS:.o=.d) $(TESTS:=.d) $(CRASHERS:=.d)
-include $(wildcard $(BUILD)/fuzz/*.d)
-include $(HARNESS:.o=.d) $(CRASH_PARTS:%.c=$(BUILD)/%.d)
