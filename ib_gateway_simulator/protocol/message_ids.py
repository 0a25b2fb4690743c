"""The names of the messages that the simulator sends, by message id."""

from __future__ import annotations

from enum import IntEnum


class MessageType(IntEnum):
    """The messages, by the id with which they begin."""

    tickPrice = 1
    tickSize = 2
    error = 4
    updateAccountValue = 6
    updatePortfolio = 7
    updateAccountTime = 8
    nextValidId = 9
    contractDetails = 10
    managedAccounts = 15
    tickOptionComputation = 21
    tickGeneric = 45
    tickString = 46
    currentTime = 49
    contractDetailsEnd = 52
    openOrderEnd = 53
    accountDownloadEnd = 54
    execDetailsEnd = 55
    tickSnapshotEnd = 57
    marketDataType = 58
    position = 61
    positionEnd = 62
    accountSummary = 63
    accountSummaryEnd = 64
    positionMulti = 71
    positionMultiEnd = 72
    accountUpdateMulti = 73
    accountUpdateMultiEnd = 74
    securityDefinitionOptionParameter = 75
    securityDefinitionOptionParameterEnd = 76
    softDollarTiers = 77
    familyCodes = 78
    symbolSamples = 79
    mktDepthExchanges = 80
    tickReqParams = 81
    smartComponents = 82
    newsProviders = 85
    marketRule = 93
    pnl = 94
    pnlSingle = 95
    completedOrdersEnd = 102
    userInfo = 107


# By the id as messages have it.
NAMES = {str(message.value): message.name for message in MessageType}
