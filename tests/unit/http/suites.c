/* suites.c - all suites of the HTTP surface, on a fake engine.
 * In:   names on the command line.      Out: the runner's report.
 * Owns: nothing.
 * Why:  one list says what runs. */
#include "common/log.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

extern CU_SuiteInfo suite_bodies, suite_text, suite_gate, suite_kit, suite_generation, suite_server,
    suite_answers;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_bodies,     suite_text,   suite_gate,    suite_kit,
                             suite_generation, suite_server, suite_answers, CU_SUITE_INFO_NULL};
    dr_log_init(DR_LOG_ERROR, DR_LOG_TEXT, "test", -1);
    int rc = dr_run_suites(suites, argc, argv);
    rig_kit_end();
    return rc;
}
