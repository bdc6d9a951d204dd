/* suites.c - all suites of the text world.
 * In:   names on the command line.      Out: the runner's report.
 * Owns: nothing.
 * Why:  one list says what runs. */
#include "tests/support/runner.h"
#include "tests/unit/text/fixture.h"

extern CU_SuiteInfo suite_utf8, suite_pretokenizer, suite_bpe, suite_tokenizer, suite_refusals, suite_stream,
    suite_chat;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_utf8,     suite_pretokenizer, suite_bpe,  suite_tokenizer,
                             suite_refusals, suite_stream,       suite_chat, CU_SUITE_INFO_NULL};
    int rc = dr_run_suites(suites, argc, argv);
    fixture_end();
    return rc;
}
