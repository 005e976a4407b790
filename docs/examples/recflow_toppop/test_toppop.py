from recflow.testing import ModelConformance


class TestTopPop(ModelConformance):
    plugin = "toppop"
    personalised = False
